/* The order book: header, levels of both sides, then, where orders have names, a pool of orders and a table of ids. The
 * rules are stated in tengri/book.h.
 *
 * A side is an array of levels sorted by key, the best one last, where key = +price for bids and -price for asks: one
 * search serves both, and what happens near the best price moves little memory. Each level begins a list of its orders,
 * so pushing a level out costs what it holds. The table of ids is open addressing with linear probing; deletion moves
 * later entries back (Knuth, TAOCP 3, 6.4, algorithm R), so it never fills up with marks of what was there. */
#include "tengri/book.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define TF_BOOK_MAGIC UINT64_C(0x31304b4f4f424654)
#define TF_BOOK_VERSION 1u
#define ALIGNMENT ((size_t)64)
#define NONE UINT32_MAX
#define BIDS 0
#define ASKS 1
#define NAMED_BY_PRICE 2u /* bit of a tag; the lowest bit is the side */

typedef struct level {
    double key;
    double high; /* sum of sizes, in two parts */
    double low;
    uint32_t orders : 31;
    uint32_t rounded : 1; /* the sum lost digits: it is counted anew when something leaves */
    uint32_t first; /* order, NONE in a book by price */
} level;

typedef struct order {
    uint64_t id; /* or the bits of the price */
    double key;
    double size;
    uint32_t next; /* at the level, or in the list of free places */
    uint32_t before;
    uint32_t tag;
    uint32_t used;
} order;

typedef struct side {
    uint32_t count;
    uint32_t is_cut;
    double cut; /* key of the best level that was pushed out since the last CLEAR */
} side;

struct tf_book {
    uint64_t magic;
    uint32_t version;
    uint32_t state;
    size_t bytes;
    size_t levels_at[2]; /* offsets from the start of the block */
    size_t orders_at;
    size_t table_at;
    tf_book_options options;
    tf_book_counters counters;
    uint64_t sequence;
    uint64_t ts_event;
    uint64_t ts_init;
    uint32_t slot;
    uint32_t mask; /* of the table of ids */
    uint32_t orders;
    uint32_t fresh; /* places of the pool that were ever used */
    uint32_t free; /* first free one among them */
    uint32_t batch; /* of a book of the top: bit per side, set while changes of a snapshot follow each other */
    side sides[2];
};

/* --- layout --- */

static size_t round_up(size_t bytes) { return (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1); }

static size_t levels_offset(const tf_book_options *o, int s) {
    return round_up(sizeof(tf_book)) + (size_t)s * round_up(o->levels * sizeof(level));
}

static size_t orders_offset(const tf_book_options *o) { return levels_offset(o, 2); }

static size_t table_offset(const tf_book_options *o) { return orders_offset(o) + round_up(o->orders * sizeof(order)); }

static uint32_t table_places(const tf_book_options *o) {
    uint32_t places = 4;
    while (places < 2 * o->orders) places *= 2;
    return places;
}

static inline level *levels_of(const tf_book *b, int s) { return (level *)((char *)(uintptr_t)b + b->levels_at[s]); }

static inline order *orders_of(const tf_book *b) { return (order *)((char *)(uintptr_t)b + b->orders_at); }

/* An entry: hash in the upper half, place in the pool + 1 in the lower; 0 is empty. */
static inline uint64_t *table_of(const tf_book *b) { return (uint64_t *)((char *)(uintptr_t)b + b->table_at); }

static tf_status read_options(const tf_book_options *given, tf_book_options *out) {
    if (given == NULL) return TF_ERR_ARGUMENT;
    *out = *given;
    if (out->kind < TF_BOOK_TOP || out->kind > TF_BOOK_BY_ORDER) return TF_ERR_ARGUMENT;
    if (out->rules & ~(TF_BOOK_CONTIGUOUS | TF_BOOK_KEEP_BACKWARD)) return TF_ERR_ARGUMENT;
    if (out->kind == TF_BOOK_TOP) {
        out->levels = 1;
        out->orders = 2;
    } else if (out->kind == TF_BOOK_BY_PRICE) {
        out->orders = 0;
    } else if (out->orders < 1 || out->orders > TF_BOOK_MAX_ORDERS) {
        return TF_ERR_SHAPE;
    }
    return out->levels < 1 || out->levels > TF_BOOK_MAX_LEVELS ? TF_ERR_SHAPE : TF_OK;
}

static size_t size_of(const tf_book_options *o) {
    if (o->orders == 0) return orders_offset(o);
    return table_offset(o) + round_up(table_places(o) * sizeof(uint64_t));
}

tf_status tf_book_size(const tf_book_options *options, size_t *bytes) {
    tf_book_options o;
    const tf_status status = bytes == NULL ? TF_ERR_ARGUMENT : read_options(options, &o);
    if (status == TF_OK) *bytes = size_of(&o);
    return status;
}

static void empty(tf_book *b) {
    memset(b->sides, 0, sizeof b->sides);
    if (b->fresh > 0) memset(table_of(b), 0, ((size_t)b->mask + 1) * sizeof(uint64_t));
    b->orders = 0;
    b->fresh = 0;
    b->free = NONE;
    b->batch = 0;
}

void tf_book_reset(tf_book *b) {
    memset((char *)b + b->levels_at[BIDS], 0, b->bytes - b->levels_at[BIDS]);
    b->fresh = 0;
    empty(b);
    b->state = 0;
    memset(&b->counters, 0, sizeof b->counters);
    b->sequence = b->ts_event = b->ts_init = 0;
    b->slot = 0;
}

tf_status tf_book_init(void *memory, size_t bytes, const tf_book_options *options, tf_book **out) {
    tf_book_options o;
    const tf_status status = read_options(options, &o);
    if (status != TF_OK) return status;
    if (memory == NULL || out == NULL || (uintptr_t)memory % ALIGNMENT != 0) return TF_ERR_ARGUMENT;
    const size_t needed = size_of(&o);
    if (bytes < needed) return TF_ERR_MEMORY;
    tf_book *b = memory;
    memset(b, 0, round_up(sizeof *b));
    b->magic = TF_BOOK_MAGIC;
    b->version = TF_BOOK_VERSION;
    b->bytes = needed;
    b->levels_at[BIDS] = levels_offset(&o, BIDS);
    b->levels_at[ASKS] = levels_offset(&o, ASKS);
    b->orders_at = orders_offset(&o);
    b->table_at = table_offset(&o);
    b->options = o;
    b->mask = o.orders > 0 ? table_places(&o) - 1 : 0;
    tf_book_reset(b);
    *out = b;
    return TF_OK;
}

size_t tf_book_bytes(const tf_book *b) { return b->bytes; }

/* --- sums --- */

/* Knuth's two-sum, twice; the pair stays normalised, so `high` is the sum rounded once. Exact up to 106 binary digits
 * between the largest and the smallest part; beyond that `rounded` is set. */
static inline void add_size(level *l, double size) {
    const double sum = l->high + size;
    const double part = sum - l->high;
    const double rest = (l->high - (sum - part)) + (size - part);
    const double low = l->low + rest;
    const double low_part = low - l->low;
    if ((l->low - (low - low_part)) + (rest - low_part) != 0.0) l->rounded = 1;
    l->high = sum + low;
    l->low = low - (l->high - sum);
}

static void sum_orders(const order *pool, level *l) {
    l->high = l->low = 0.0;
    l->rounded = 0;
    for (uint32_t i = l->first; i != NONE; i = pool[i].next) add_size(l, pool[i].size);
}

/* --- levels --- */

static inline double sign_of(int s) { return s == BIDS ? 1.0 : -1.0; }

/* The first of the levels whose key is not below `key`; searched from the best one, in steps that double. */
static inline uint32_t place_of(const level *levels, uint32_t count, double key) {
    uint32_t high = count, step = 1;
    while (step <= count && levels[count - step].key >= key) {
        high = count - step;
        step *= 2;
    }
    uint32_t low = step <= count ? count - step + 1 : 0;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (levels[middle].key >= key) high = middle;
        else low = middle + 1;
    }
    return low;
}

static inline int is_at(const level *levels, uint32_t count, uint32_t at, double key) {
    return at < count && levels[at].key == key;
}

static void cut_at(tf_book *b, int s, double key) {
    side *x = &b->sides[s];
    if (!x->is_cut || key > x->cut) x->cut = key;
    x->is_cut = 1;
    b->counters.overflow++;
    b->state |= TF_BOOK_TRUNCATED;
}

static inline void remove_level(tf_book *b, int s, uint32_t at) {
    level *levels = levels_of(b, s);
    const uint32_t count = --b->sides[s].count;
    if (at < count) memmove(levels + at, levels + at + 1, (count - at) * sizeof(level));
}

static void free_orders(tf_book *b, uint32_t first);

/* A place for a new level at `at`; NULL when the side is full of better ones. The level's key is set. */
static inline level *insert_level(tf_book *b, int s, uint32_t at, double key) {
    level *levels = levels_of(b, s);
    const uint32_t count = b->sides[s].count;
    if (count < b->options.levels) {
        if (at < count) memmove(levels + at + 1, levels + at, (count - at) * sizeof(level));
        b->sides[s].count++;
    } else {
        cut_at(b, s, at == 0 ? key : levels[0].key);
        if (at == 0) return NULL;
        free_orders(b, levels[0].first);
        memmove(levels, levels + 1, --at * sizeof(level));
    }
    levels[at] = (level){.key = key, .first = NONE};
    return &levels[at];
}

/* --- orders --- */

static inline uint32_t hash_of(uint64_t id, uint32_t tag) { /* the finaliser of splitmix64 */
    uint64_t z = id + (tag + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z >> 32 ^ z);
}

/* Where the entry of an order is, or the empty place where the search ended. At most half of the places are taken. */
static inline uint32_t find_entry(const tf_book *b, uint64_t id, uint32_t tag) {
    const uint64_t *table = table_of(b);
    const order *pool = orders_of(b);
    const uint32_t hash = hash_of(id, tag);
    uint32_t at = hash & b->mask;
    for (;; at = (at + 1) & b->mask) {
        const uint64_t entry = table[at];
        if (entry == 0) return at;
        if ((uint32_t)(entry >> 32) != hash) continue;
        const order *o = &pool[(uint32_t)entry - 1];
        if (o->id == id && o->tag == tag) return at;
    }
}

static inline uint32_t find_order(const tf_book *b, uint64_t id, uint32_t tag) {
    return (uint32_t)table_of(b)[find_entry(b, id, tag)] - 1; /* NONE for an empty entry */
}

static void forget_entry(tf_book *b, uint32_t hole) {
    uint64_t *table = table_of(b);
    const uint32_t mask = b->mask;
    for (uint32_t at = (hole + 1) & mask; table[at] != 0; at = (at + 1) & mask) {
        const uint32_t home = (uint32_t)(table[at] >> 32) & mask;
        /* An entry may move back to the hole unless its home lies between the two. */
        if (((at - home) & mask) < ((at - hole) & mask)) continue;
        table[hole] = table[at];
        hole = at;
    }
    table[hole] = 0;
}

static inline void free_order(tf_book *b, uint32_t i) {
    order *o = &orders_of(b)[i];
    forget_entry(b, find_entry(b, o->id, o->tag));
    o->used = 0;
    o->next = b->free;
    b->free = i;
    b->orders--;
}

static void free_orders(tf_book *b, uint32_t first) {
    while (first != NONE) {
        const uint32_t next = orders_of(b)[first].next;
        free_order(b, first);
        first = next;
    }
}

/* Takes an order off its level, which leaves when it was the last one. The order keeps its place in the pool. */
static void leave_level(tf_book *b, int s, const order *o) {
    order *pool = orders_of(b);
    level *levels = levels_of(b, s);
    const uint32_t at = place_of(levels, b->sides[s].count, o->key);
    level *l = &levels[at];
    if (l->orders == 1) {
        remove_level(b, s, at);
        return;
    }
    if (o->before != NONE) pool[o->before].next = o->next;
    else l->first = o->next;
    if (o->next != NONE) pool[o->next].before = o->before;
    l->orders--;
    add_size(l, -o->size);
    if (l->rounded) sum_orders(pool, l);
}

static int join_level(tf_book *b, int s, uint32_t i) {
    order *pool = orders_of(b);
    level *levels = levels_of(b, s);
    const uint32_t at = place_of(levels, b->sides[s].count, pool[i].key);
    level *l = &levels[at];
    if (!is_at(levels, b->sides[s].count, at, pool[i].key)) l = insert_level(b, s, at, pool[i].key);
    if (l == NULL) return 0;
    pool[i].before = NONE;
    pool[i].next = l->first;
    if (l->first != NONE) pool[l->first].before = i;
    l->first = i;
    l->orders++;
    add_size(l, pool[i].size);
    return 1;
}

/* Makes room in the pool by pushing out the worst level of the longer side; 0 when the new order is no better. */
static int make_room(tf_book *b, int s, double key) {
    const int victim = b->sides[1 - s].count > b->sides[s].count ? 1 - s : s;
    const level worst = levels_of(b, victim)[0];
    if (victim == s && key <= worst.key) {
        cut_at(b, s, key);
        return 0;
    }
    cut_at(b, victim, worst.key);
    free_orders(b, worst.first);
    remove_level(b, victim, 0);
    return 1;
}

static void add_order(tf_book *b, int s, uint64_t id, uint32_t tag, double key, double size) {
    if (b->orders == b->options.orders && !make_room(b, s, key)) return;
    order *pool = orders_of(b);
    uint32_t i = b->free;
    if (i != NONE) b->free = pool[i].next;
    else i = b->fresh++;
    pool[i] = (order){.id = id, .key = key, .size = size, .next = NONE, .before = NONE, .tag = tag, .used = 1};
    table_of(b)[find_entry(b, id, tag)] = (uint64_t)hash_of(id, tag) << 32 | (i + 1);
    b->orders++;
    if (!join_level(b, s, i)) free_order(b, i);
}

static void set_order(tf_book *b, int s, uint32_t i, double key, double size) {
    order *o = &orders_of(b)[i];
    if (o->key == key) {
        level *levels = levels_of(b, s);
        level *l = &levels[place_of(levels, b->sides[s].count, key)];
        add_size(l, -o->size);
        o->size = size;
        add_size(l, size);
        if (l->rounded) sum_orders(orders_of(b), l);
        return;
    }
    leave_level(b, s, o);
    o->key = key;
    o->size = size;
    if (!join_level(b, s, i)) free_order(b, i);
}

static void delete_order(tf_book *b, int s, uint32_t i) {
    leave_level(b, s, &orders_of(b)[i]);
    free_order(b, i);
}

/* --- one change --- */

typedef struct change {
    int side; /* BIDS, ASKS */
    uint32_t tag;
    uint64_t id;
    uint32_t order; /* NONE: not there */
    double key;
} change;

/* Whether the change is one that this book can take, and what it names. */
static int read_change(const tf_book *b, const tf_delta *d, change *out) {
    if (d->action < TF_DELTA_ADD || d->action > TF_DELTA_DELETE) return 0;
    if (d->side < -1 || d->side > 1) return 0;
    const int is_delete = d->action == TF_DELTA_DELETE;
    if (!is_delete && !(d->size >= 0.0 && d->size <= TF_BOOK_VALUE_MAX)) return 0;
    if (d->action == TF_DELTA_ADD && d->size == 0.0) return 0;
    const int by_price = b->options.kind == TF_BOOK_BY_PRICE;
    const int by_side = b->options.kind == TF_BOOK_TOP || (!by_price && d->flags & TF_FLAG_TOB);
    const int by_id = !by_price && !by_side && d->order_id != 0 && !(d->flags & TF_FLAG_MBP);
    const int removes = is_delete || d->size == 0.0;
    const int reads_price = !removes || !(by_side || by_id);
    if (reads_price && !(fabs(d->price) <= TF_BOOK_VALUE_MAX)) return 0;
    out->order = NONE;
    if (d->side == 0) {
        if (!by_id || d->action == TF_DELTA_ADD) return 0;
        const uint32_t bid = find_order(b, d->order_id, BIDS), ask = find_order(b, d->order_id, ASKS);
        if ((bid == NONE) == (ask == NONE)) return 0;
        out->side = bid != NONE ? BIDS : ASKS;
    } else {
        out->side = d->side > 0 ? BIDS : ASKS;
    }
    const double price = reads_price ? d->price + 0.0 : 0.0; /* no minus zero: the bits may be a name */
    out->key = sign_of(out->side) * price;
    out->tag = (uint32_t)out->side;
    out->id = 0;
    if (by_price) return 1;
    if (by_side) {
        out->id = d->side > 0 ? 1 : 2;
    } else if (by_id) {
        out->id = d->order_id;
    } else {
        memcpy(&out->id, &price, sizeof price);
        out->tag |= NAMED_BY_PRICE;
    }
    out->order = find_order(b, out->id, out->tag);
    return 1;
}

static void change_price(tf_book *b, const tf_delta *d, const change *c) {
    level *levels = levels_of(b, c->side);
    const uint32_t count = b->sides[c->side].count;
    const uint32_t at = place_of(levels, count, c->key);
    const int there = is_at(levels, count, at, c->key);
    if (d->action == TF_DELTA_DELETE || d->size == 0.0) {
        if (there) remove_level(b, c->side, at);
        else b->counters.unknown++;
        return;
    }
    level *l = there ? &levels[at] : insert_level(b, c->side, at, c->key);
    if (l == NULL) return;
    l->high = d->size;
    l->orders = 1;
}

/* Within a snapshot the best of the levels added stays: whether this one, which is there already, is worse. */
static int stays_behind(tf_book *b, const tf_delta *d, const change *c) {
    const uint32_t bit = 1u << c->side;
    const double key = c->order == NONE ? 0.0 : orders_of(b)[c->order].key;
    const int was = (b->batch & bit) != 0, is_add = d->action == TF_DELTA_ADD;
    if (is_add || c->order == NONE || key != c->key) {
        b->batch &= ~bit;
        if (d->flags & TF_FLAG_SNAPSHOT && !(d->flags & TF_FLAG_LAST)) b->batch |= bit;
    }
    return was && is_add && c->order != NONE && d->flags & TF_FLAG_SNAPSHOT && c->key < key;
}

static void change_order(tf_book *b, const tf_delta *d, const change *c) {
    const int removes = d->action == TF_DELTA_DELETE || d->size == 0.0;
    if (c->order == NONE && d->action != TF_DELTA_ADD) b->counters.unknown++;
    if (removes) {
        if (c->order != NONE) delete_order(b, c->side, c->order);
    } else if (b->options.kind == TF_BOOK_TOP && stays_behind(b, d, c)) {
        return;
    } else if (c->order == NONE) {
        add_order(b, c->side, c->id, c->tag, c->key, d->size);
    } else {
        set_order(b, c->side, c->order, c->key, d->size);
    }
}

static void follow_sequence(tf_book *b, const tf_delta *d) {
    const int contiguous = (b->options.rules & TF_BOOK_CONTIGUOUS) != 0;
    if (d->flags & TF_FLAG_SNAPSHOT) {
        if (contiguous && d->sequence > b->sequence) b->sequence = d->sequence;
        return;
    }
    if (d->sequence == 0) return;
    if (d->sequence < b->sequence) {
        b->counters.out_of_order++;
        b->state |= TF_BOOK_STALE;
        return;
    }
    if (contiguous && b->sequence != 0 && d->sequence - b->sequence > 1) {
        b->counters.gaps++;
        b->state |= TF_BOOK_STALE;
    }
    b->sequence = d->sequence;
}

static void end_event(tf_book *b, uint32_t flags) {
    b->state &= ~TF_BOOK_WHOLE;
    if (!(flags & TF_FLAG_LAST)) return;
    b->state = (b->state | TF_BOOK_WHOLE) & ~TF_BOOK_CROSSED;
    b->counters.events++;
    const uint32_t bids = b->sides[BIDS].count, asks = b->sides[ASKS].count;
    if (bids > 0 && asks > 0 && levels_of(b, BIDS)[bids - 1].key > -levels_of(b, ASKS)[asks - 1].key) {
        b->state |= TF_BOOK_CROSSED;
        b->counters.crossed++;
    }
}

int tf_book_apply(tf_book *b, const tf_delta *d) {
    change c;
    if (d->action == TF_DELTA_CLEAR) {
        empty(b);
        b->state = 0;
        b->counters.clears++;
        b->ts_event = d->ts_event;
        const int kept = b->options.rules & TF_BOOK_CONTIGUOUS || !(d->flags & TF_FLAG_SNAPSHOT);
        b->sequence = kept ? d->sequence : 0;
    } else {
        if (!read_change(b, d, &c)) {
            b->counters.invalid++;
            if (d->flags & TF_FLAG_LAST) end_event(b, d->flags);
            return 0;
        }
        if (d->ts_event >= b->ts_event) {
            b->ts_event = d->ts_event;
        } else if (!(d->flags & TF_FLAG_SNAPSHOT)) {
            b->counters.backward++;
            if (!(b->options.rules & TF_BOOK_KEEP_BACKWARD)) return 0;
        }
        follow_sequence(b, d);
        if (b->options.kind == TF_BOOK_BY_PRICE) change_price(b, d, &c);
        else change_order(b, d, &c);
    }
    b->ts_init = d->ts_init;
    b->slot = d->slot;
    b->counters.applied++;
    end_event(b, d->flags);
    return 1;
}

/* --- questions --- */

uint32_t tf_book_state(const tf_book *b) { return b->state; }
void tf_book_counters_of(const tf_book *b, tf_book_counters *out) { *out = b->counters; }
uint64_t tf_book_sequence(const tf_book *b) { return b->sequence; }
uint32_t tf_book_orders(const tf_book *b) { return b->orders; }

static inline int side_index(int side) { return side > 0 ? BIDS : ASKS; }

uint32_t tf_book_levels(const tf_book *b, int side) { return b->sides[side_index(side)].count; }

uint32_t tf_book_exact_levels(const tf_book *b, int side) {
    const int s = side_index(side);
    const level *levels = levels_of(b, s);
    const uint32_t count = b->sides[s].count;
    if (!b->sides[s].is_cut) return count;
    const uint32_t at = place_of(levels, count, b->sides[s].cut);
    return count - at - (uint32_t)is_at(levels, count, at, b->sides[s].cut);
}

static inline tf_book_level seen(const level *l, int s) {
    return (tf_book_level){sign_of(s) * l->key + 0.0, l->high, l->orders};
}

int tf_book_level_at(const tf_book *b, int side, uint32_t rank, tf_book_level *out) {
    const int s = side_index(side);
    const uint32_t count = b->sides[s].count;
    if (rank >= count) return 0;
    *out = seen(&levels_of(b, s)[count - 1 - rank], s);
    return 1;
}

int tf_book_level_of(const tf_book *b, int side, double price, tf_book_level *out) {
    const int s = side_index(side);
    const level *levels = levels_of(b, s);
    const uint32_t at = place_of(levels, b->sides[s].count, sign_of(s) * price);
    if (!is_at(levels, b->sides[s].count, at, sign_of(s) * price)) return 0;
    *out = seen(&levels[at], s);
    return 1;
}

double tf_book_cumulative(const tf_book *b, int side, uint32_t depth) {
    const int s = side_index(side);
    const level *levels = levels_of(b, s);
    level total = {0};
    uint32_t at = b->sides[s].count;
    for (; depth > 0 && at > 0; depth--) {
        const level *l = &levels[--at];
        add_size(&total, l->high);
        add_size(&total, l->low);
    }
    return total.high;
}

uint32_t tf_book_depth(const tf_book *b, tf_depth10 *out) {
    const uint32_t bids = b->sides[BIDS].count, asks = b->sides[ASKS].count;
    const level *bid = levels_of(b, BIDS) + bids, *ask = levels_of(b, ASKS) + asks;
    for (uint32_t i = 0; i < TF_DEPTH_LEVELS; i++) {
        out->bid_price[i] = i < bids ? (bid - i - 1)->key : 0.0;
        out->bid_size[i] = i < bids ? (bid - i - 1)->high : 0.0;
        out->ask_price[i] = i < asks ? 0.0 - (ask - i - 1)->key : 0.0;
        out->ask_size[i] = i < asks ? (ask - i - 1)->high : 0.0;
    }
    const uint32_t most = bids > asks ? bids : asks;
    out->levels = most < TF_DEPTH_LEVELS ? most : TF_DEPTH_LEVELS;
    out->ts_event = b->ts_event;
    out->ts_init = b->ts_init;
    out->slot = b->slot;
    return b->state;
}

/* --- soundness --- */

/* The list of one level: in range, linked both ways, of this side and price, and adding up. Marks what it visits by
 * counting, so a list that runs in a circle ends at the level's number of orders. */
static int list_sound(const tf_book *b, int s, const level *l) {
    const order *pool = orders_of(b);
    level sum = {0};
    uint32_t before = NONE, i = l->first;
    for (uint32_t n = 0; n < l->orders; n++) {
        if (i >= b->fresh) return 0;
        const order *o = &pool[i];
        if (o->used != 1 || o->before != before || o->key != l->key || (o->tag & 1u) != (uint32_t)s) return 0;
        if (!(o->size > 0.0 && o->size <= TF_BOOK_VALUE_MAX)) return 0;
        add_size(&sum, o->size);
        before = i;
        i = o->next;
    }
    if (i != NONE) return 0;
    if (!l->rounded) return !sum.rounded && sum.high == l->high && sum.low == l->low;
    return fabs(sum.high - l->high) <= 1e-12 * sum.high && fabs(l->low) <= 0x1p-52 * l->high;
}

static int side_sound(const tf_book *b, int s, uint32_t *orders) {
    const level *levels = levels_of(b, s);
    const int named = b->options.orders > 0;
    const side *x = &b->sides[s];
    if (x->count > b->options.levels || x->is_cut > 1 || !(fabs(x->cut) <= TF_BOOK_VALUE_MAX)) return 0;
    for (uint32_t i = 0; i < x->count; i++) {
        const level *l = &levels[i];
        if (!(fabs(l->key) <= TF_BOOK_VALUE_MAX) || !(l->high > 0.0 && isfinite(l->high)) || !isfinite(l->low))
            return 0;
        if (i > 0 && !(levels[i - 1].key < l->key)) return 0;
        if (!named &&
            (l->orders != 1 || l->rounded || l->first != NONE || l->low != 0.0 || l->high > TF_BOOK_VALUE_MAX))
            return 0;
        if (!named) continue;
        if (l->orders < 1 || l->orders > b->options.orders - *orders || !list_sound(b, s, l)) return 0;
        *orders += l->orders;
    }
    return 1;
}

/* Every order that is used has exactly one entry, and a search for it ends there: then the lists, which hold as many
 * orders as are used, hold each once. */
static int table_sound(const tf_book *b) {
    const order *pool = orders_of(b);
    const uint64_t *table = table_of(b);
    uint32_t entries = 0, used = 0, free = 0;
    for (uint32_t at = 0; at <= b->mask; at++) entries += table[at] != 0;
    /* Half of the places are empty, so a search ends. */
    if (entries != b->orders || b->orders > b->options.orders || b->fresh > b->options.orders) return 0;
    for (uint32_t at = 0; at <= b->mask; at++) {
        if (table[at] != 0 && ((uint32_t)table[at] == 0 || (uint32_t)table[at] > b->fresh)) return 0;
    }
    for (uint32_t i = 0; i < b->fresh; i++) {
        if (pool[i].used > 1 || pool[i].tag > 3) return 0;
        if (!pool[i].used) continue;
        used++;
        if ((uint32_t)table[find_entry(b, pool[i].id, pool[i].tag)] != i + 1) return 0;
    }
    for (uint32_t i = b->free; i != NONE; i = pool[i].next) {
        if (i >= b->fresh || pool[i].used || ++free > b->fresh) return 0;
    }
    return used == b->orders && free == b->fresh - used;
}

tf_status tf_book_check(const void *memory, size_t bytes, const tf_book_options *options) {
    tf_book_options o;
    const tf_status status = read_options(options, &o);
    if (status != TF_OK) return status;
    if (memory == NULL || (uintptr_t)memory % ALIGNMENT != 0) return TF_ERR_ARGUMENT;
    const size_t needed = size_of(&o);
    if (bytes != needed) return TF_ERR_SHAPE;
    const tf_book *b = memory;
    if (b->magic != TF_BOOK_MAGIC || b->version != TF_BOOK_VERSION || b->bytes != needed) return TF_ERR_FORMAT;
    if (memcmp(&b->options, &o, sizeof o) != 0 || b->batch > 3) return TF_ERR_FORMAT;
    if (b->levels_at[BIDS] != levels_offset(&o, BIDS) || b->levels_at[ASKS] != levels_offset(&o, ASKS) ||
        b->orders_at != orders_offset(&o) || b->table_at != table_offset(&o)) {
        return TF_ERR_FORMAT;
    }
    if (b->mask != (o.orders > 0 ? table_places(&o) - 1 : 0)) return TF_ERR_FORMAT;
    if (b->state & ~(TF_BOOK_WHOLE | TF_BOOK_STALE | TF_BOOK_CROSSED | TF_BOOK_TRUNCATED)) return TF_ERR_FORMAT;
    const int is_cut = b->sides[BIDS].is_cut || b->sides[ASKS].is_cut;
    if (is_cut != ((b->state & TF_BOOK_TRUNCATED) != 0)) return TF_ERR_FORMAT;
    if (o.orders == 0 && (b->orders != 0 || b->fresh != 0 || b->free != NONE)) return TF_ERR_FORMAT;
    if (o.orders > 0 && !table_sound(b)) return TF_ERR_FORMAT;
    uint32_t orders = 0;
    if (!side_sound(b, BIDS, &orders) || !side_sound(b, ASKS, &orders)) return TF_ERR_FORMAT;
    return orders == b->orders ? TF_OK : TF_ERR_FORMAT;
}
