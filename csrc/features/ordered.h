/* An ordered multiset of doubles in a pool of fixed capacity: order statistics of a rolling window.
 *
 * An AVL tree (Adelson-Velsky and Landis 1962) over 32-bit indices, so a copy of the block is an exact copy; equal
 * values share a node. Insert, erase, rank and select are O(log n), at most 1.44 log2(n) nodes deep; nothing
 * depends on chance.
 *
 * Sums do not drift: a node knows the sum of (value - own value) over its subtree, and that is made anew from its
 * two children whenever something below it changes. Nothing is ever subtracted from a running total, and since all
 * sums are relative to a member, what is lost is relative to the spread of the values and not to their level
 * (65,000 +- 0.01). The pool holds `capacity` values, copies counted.
 *
 * Values must lie in [-1e300, 1e300], where no sum of 2^32 of them can overflow. -0 and 0 are one value. */
#ifndef TENGRI_FEATURES_ORDERED_H
#define TENGRI_FEATURES_ORDERED_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define TF_ORDERED_LIMIT 1e300
#define TF_ORDERED_DEPTH 48 /* an AVL tree of 2^32 nodes is at most 46 deep */

typedef struct tf_ordered_node {
    double value;
    double excess;   /* sum of (value - own value) over the subtree */
    uint32_t left;   /* 0: none. In a free node: the next free one */
    uint32_t right;
    uint32_t count;  /* values in the subtree */
    uint32_t copies; /* of this value; 0: the node is free */
    uint32_t height;
    uint32_t reserved;
} tf_ordered_node;

typedef struct tf_ordered {
    uint32_t capacity;
    uint32_t root;
    uint32_t free; /* first node given back */
    uint32_t used; /* nodes ever taken: 1 .. used */
    tf_ordered_node node[]; /* capacity + 1; the first is "none" and stays zero */
} tf_ordered;

static inline size_t ordered_bytes(uint32_t capacity) {
    return sizeof(tf_ordered) + ((size_t)capacity + 1) * sizeof(tf_ordered_node);
}

static inline void ordered_reset(tf_ordered *set, uint32_t capacity) {
    set->capacity = capacity;
    set->root = set->free = set->used = 0;
    set->node[0] = (tf_ordered_node){.value = 0.0};
}

static inline uint32_t ordered_count(const tf_ordered *set) { return set->node[set->root].count; }

/* Sum of (value - own value) over the subtree at `child`, where own is the value of another node. */
static inline double ordered_part(const tf_ordered_node *child, double own) {
    return child->excess + (double)child->count * (child->value - own);
}

static inline double ordered_excess(const tf_ordered *set, const tf_ordered_node *node) {
    return (node->left != 0 ? ordered_part(&set->node[node->left], node->value) : 0.0) +
           (node->right != 0 ? ordered_part(&set->node[node->right], node->value) : 0.0);
}

static inline uint32_t ordered_height(const tf_ordered *set, const tf_ordered_node *node) {
    const uint32_t left = set->node[node->left].height, right = set->node[node->right].height;
    return 1 + (left > right ? left : right);
}

/* `sums` is a compile-time constant: 0 leaves the sums out, for those who want order alone. */
static inline void ordered_renew(tf_ordered *set, uint32_t index, int sums) {
    tf_ordered_node *node = &set->node[index];
    node->count = node->copies + set->node[node->left].count + set->node[node->right].count;
    node->height = ordered_height(set, node);
    if (sums) node->excess = ordered_excess(set, node);
}

static inline uint32_t ordered_rotate_right(tf_ordered *set, uint32_t index, int sums) {
    const uint32_t up = set->node[index].left;
    set->node[index].left = set->node[up].right;
    set->node[up].right = index;
    ordered_renew(set, index, sums);
    ordered_renew(set, up, sums);
    return up;
}

static inline uint32_t ordered_rotate_left(tf_ordered *set, uint32_t index, int sums) {
    const uint32_t up = set->node[index].right;
    set->node[index].right = set->node[up].left;
    set->node[up].left = index;
    ordered_renew(set, index, sums);
    ordered_renew(set, up, sums);
    return up;
}

/* Renews a node whose subtrees changed and gives the root of the balanced subtree. */
static inline uint32_t ordered_balance(tf_ordered *set, uint32_t index, int sums) {
    tf_ordered_node *node = &set->node[index];
    const uint32_t left = set->node[node->left].height, right = set->node[node->right].height;
    if (left > right + 1) {
        const tf_ordered_node *child = &set->node[node->left];
        if (set->node[child->left].height < set->node[child->right].height)
            node->left = ordered_rotate_left(set, node->left, sums);
        return ordered_rotate_right(set, index, sums);
    }
    if (right > left + 1) {
        const tf_ordered_node *child = &set->node[node->right];
        if (set->node[child->right].height < set->node[child->left].height)
            node->right = ordered_rotate_right(set, node->right, sums);
        return ordered_rotate_left(set, index, sums);
    }
    ordered_renew(set, index, sums);
    return index;
}

/* Renews and balances from the deepest link up. Counts of the first `counted` links are right already, so without
 * sums it may stop there as soon as a subtree is as high as it was. */
static inline void ordered_retrace(tf_ordered *set, uint32_t **path, int depth, int counted, int sums) {
    while (depth-- > 0) {
        const uint32_t height = set->node[*path[depth]].height;
        *path[depth] = ordered_balance(set, *path[depth], sums);
        if (!sums && depth < counted && set->node[*path[depth]].height == height) return;
    }
}

static inline int ordered_put(tf_ordered *set, double x, int sums) {
    if (!(fabs(x) <= TF_ORDERED_LIMIT) || ordered_count(set) == set->capacity) return 0;
    uint32_t *path[TF_ORDERED_DEPTH];
    uint32_t *link = &set->root;
    int depth = 0;
    while (*link != 0) {
        tf_ordered_node *node = &set->node[*link];
        path[depth++] = link;
        node->count++;
        if (x == node->value) {
            node->copies++;
            if (sums) ordered_retrace(set, path, depth, depth, sums);
            return 1;
        }
        link = x < node->value ? &node->left : &node->right;
    }
    uint32_t index = set->free;
    if (index != 0) {
        set->free = set->node[index].left;
    } else {
        index = ++set->used; /* a node for each value is there */
    }
    set->node[index] = (tf_ordered_node){.value = x + 0.0, .count = 1, .copies = 1, .height = 1};
    *link = index;
    ordered_retrace(set, path, depth, depth, sums);
    return 1;
}

static inline int ordered_take(tf_ordered *set, double x, int sums) {
    uint32_t *path[TF_ORDERED_DEPTH];
    uint32_t *link = &set->root;
    int depth = 0;
    while (*link != 0 && set->node[*link].value != x) {
        tf_ordered_node *node = &set->node[*link];
        path[depth++] = link;
        link = x < node->value ? &node->left : &node->right;
    }
    if (*link == 0) return 0;
    const int above = depth;
    for (int i = 0; i < above; i++) set->node[*path[i]].count--;
    tf_ordered_node *node = &set->node[*link];
    if (node->copies > 1) {
        node->copies--;
        node->count--;
        path[depth++] = link;
        if (sums) ordered_retrace(set, path, depth, depth, sums);
        return 1;
    }
    uint32_t gone = *link;
    if (node->left != 0 && node->right != 0) { /* the next larger value takes the place, its node goes */
        path[depth++] = link;
        link = &node->right;
        while (set->node[*link].left != 0) {
            path[depth++] = link;
            link = &set->node[*link].left;
        }
        gone = *link;
        node->value = set->node[gone].value;
        node->copies = set->node[gone].copies;
        *link = set->node[gone].right;
    } else {
        *link = node->left != 0 ? node->left : node->right;
    }
    set->node[gone] = (tf_ordered_node){.left = set->free};
    set->free = gone;
    ordered_retrace(set, path, depth, above, sums);
    return 1;
}

/* 1 if it went in; 0 when `capacity` values are in or x is not a number within the limit. */
static inline int ordered_insert(tf_ordered *set, double x) { return ordered_put(set, x, 1); }

/* Takes one copy of x out; 0 when there is none. */
static inline int ordered_erase(tf_ordered *set, double x) { return ordered_take(set, x, 1); }

/* What a rolling window does when it is full. 1 if `old` was there and x could go in. */
static inline int ordered_replace(tf_ordered *set, double old, double x) {
    return old == x || (ordered_erase(set, old) && ordered_insert(set, x));
}

/* The same without sums: shortfall, mean and mean deviation are not to be asked of such a set. */
static inline int ordered_exchange(tf_ordered *set, double old, double x) {
    return old == x || (ordered_take(set, old, 0) && ordered_put(set, x, 0));
}

/* How many values lie below x, and how many equal it. */
static inline uint32_t ordered_rank(const tf_ordered *set, double x, uint32_t *equal) {
    uint32_t below = 0;
    *equal = 0;
    for (uint32_t at = set->root; at != 0;) {
        const tf_ordered_node *node = &set->node[at];
        if (x < node->value) {
            at = node->left;
            continue;
        }
        below += set->node[node->left].count;
        if (x == node->value) {
            *equal = node->copies;
            break;
        }
        below += node->copies;
        at = node->right;
    }
    return below;
}

/* The k-th smallest, from 0; k < count. */
static inline double ordered_select(const tf_ordered *set, uint32_t k) {
    uint32_t at = set->root;
    for (;;) {
        const tf_ordered_node *node = &set->node[at];
        const uint32_t left = set->node[node->left].count;
        if (k < left) {
            at = node->left;
        } else if (k - left < node->copies || node->right == 0) {
            return node->value;
        } else {
            k -= left + node->copies;
            at = node->right;
        }
    }
}

/* Quantile with linear interpolation between neighbours (Hyndman and Fan 1996, type 7, as NumPy does); 0 when empty. */
static inline double ordered_quantile(const tf_ordered *set, double fraction) {
    const uint32_t count = ordered_count(set);
    if (count == 0) return 0.0;
    const double place = fraction * (double)(count - 1);
    const uint32_t k = (uint32_t)place;
    const double low = ordered_select(set, k);
    const double rest = place - (double)k;
    return rest > 0.0 ? low + rest * (ordered_select(set, k + 1) - low) : low;
}

/* Sum of (x - value) over the values below x: never negative. `below` says how many there are, so the sum of the values
 * themselves is below * x minus this, where that is wanted. */
static inline double ordered_shortfall(const tf_ordered *set, double x, uint32_t *below) {
    double sum = 0.0;
    *below = 0;
    for (uint32_t at = set->root; at != 0;) {
        const tf_ordered_node *node = &set->node[at];
        if (x <= node->value) {
            at = node->left;
            continue;
        }
        const tf_ordered_node *left = &set->node[node->left];
        if (node->left != 0) sum -= ordered_part(left, x);
        sum += (double)node->copies * (x - node->value);
        *below += left->count + node->copies;
        at = node->right;
    }
    return sum;
}

/* 0 when empty. */
static inline double ordered_mean(const tf_ordered *set) {
    const tf_ordered_node *root = &set->node[set->root];
    return set->root != 0 ? root->value + root->excess / (double)root->count : 0.0;
}

/* Mean of |value - mean|: what lies below the mean weighs as much as what lies above it. */
static inline double ordered_mean_deviation(const tf_ordered *set) {
    const uint32_t count = ordered_count(set);
    uint32_t below;
    return count > 0 ? 2.0 * ordered_shortfall(set, ordered_mean(set), &below) / (double)count : 0.0;
}

/* 1 if these bytes are a set of this capacity that insert and erase may work on. It walks at most `used` nodes of
 * a damaged one: values must rise strictly in order, which no cycle and no shared branch can do. */
static inline int ordered_sound_of(const tf_ordered *set, uint32_t capacity, int sums) {
    const uint32_t used = set->used;
    if (set->capacity != capacity || used > capacity || set->root > used || set->free > used) return 0;
    const tf_ordered_node *none = &set->node[0];
    if (none->left != 0 || none->right != 0 || none->count != 0 || none->copies != 0 || none->height != 0) return 0;
    if (!(none->value == 0.0) || !(none->excess == 0.0)) return 0;
    uint32_t stack[TF_ORDERED_DEPTH];
    uint32_t depth = 0, seen = 0, at = set->root;
    double last = -INFINITY;
    while (at != 0 || depth > 0) {
        if (at != 0) {
            if (at > used || depth == TF_ORDERED_DEPTH) return 0;
            stack[depth++] = at;
            at = set->node[at].left;
            continue;
        }
        const tf_ordered_node *node = &set->node[stack[--depth]];
        if (!(fabs(node->value) <= TF_ORDERED_LIMIT) || !(node->value > last)) return 0;
        if (node->right > used || node->copies == 0 || ++seen > used) return 0;
        const tf_ordered_node *left = &set->node[node->left], *right = &set->node[node->right];
        if (left->height > right->height + 1 || right->height > left->height + 1) return 0;
        if (node->height != ordered_height(set, node) || node->height > TF_ORDERED_DEPTH - 2) return 0;
        if ((uint64_t)node->copies + left->count + right->count != node->count) return 0;
        if (!(node->excess == (sums ? ordered_excess(set, node) : 0.0))) return 0;
        last = node->value;
        at = node->right;
    }
    uint32_t free = 0;
    for (at = set->free; at != 0; at = set->node[at].left) {
        if (at > used || set->node[at].copies != 0 || ++free > used - seen) return 0;
    }
    return seen + free == used && ordered_count(set) <= capacity;
}

static inline int ordered_sound(const tf_ordered *set, uint32_t capacity) { return ordered_sound_of(set, capacity, 1); }

#endif
