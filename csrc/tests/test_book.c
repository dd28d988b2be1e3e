/* The order book without Python: against a plain list of orders, exact sums, overflow, hostile changes, damaged blocks,
 * no allocation. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tengri.h"

/* Counts every allocation of the process; sanitizers bring their own malloc, so there the count is not taken. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 1
static long allocations = 0;
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size) {
    allocations++;
    return __libc_realloc(memory, size);
}
#endif

static uint64_t seed = 0x9e3779b97f4a7c15u;
static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static tf_book *build(const tf_book_options *options, size_t *bytes) {
    tf_book *book = NULL;
    CHECK(tf_book_size(options, bytes) == TF_OK);
    void *memory = aligned_alloc(64, *bytes);
    if (memory == NULL) exit(1);
    memset(memory, 0xa5, *bytes); /* init must not rely on what was there */
    CHECK(tf_book_init(memory, *bytes, options, &book) == TF_OK);
    CHECK(tf_book_check(book, *bytes, options) == TF_OK);
    return book;
}

static tf_delta delta(int action, int side, double price, double size, uint64_t id) {
    return (tf_delta){.price = price,
                      .size = size,
                      .order_id = id,
                      .action = (uint8_t)action,
                      .side = (int8_t)side,
                      .flags = TF_FLAG_LAST};
}

static int put(tf_book *book, int action, int side, double price, double size, uint64_t id) {
    const tf_delta d = delta(action, side, price, size, id);
    return tf_book_apply(book, &d);
}

/* --- a list of orders, searched from end to end --- */

typedef struct plain_order {
    uint64_t id;
    int side;
    double price;
    double size;
} plain_order;

typedef struct plain_book {
    int count;
    plain_order order[4096];
} plain_book;

static void plain_apply(plain_book *p, const tf_delta *d, int by_price) {
    if (d->action == TF_DELTA_CLEAR) p->count = 0;
    if (d->action == TF_DELTA_CLEAR) return;
    int at = 0;
    for (; at < p->count; at++) {
        const plain_order *o = &p->order[at];
        if (o->side == d->side && (by_price ? o->price == d->price : o->id == d->order_id)) break;
    }
    if (d->action == TF_DELTA_DELETE || d->size == 0.0) {
        if (at < p->count) p->order[at] = p->order[--p->count];
        return;
    }
    if (at == p->count) p->count++;
    p->order[at] = (plain_order){d->order_id, d->side, d->price, d->size};
}

static void compare(const tf_book *book, const plain_book *p) {
    for (int side = -1; side <= 1; side += 2) {
        double price = side > 0 ? INFINITY : -INFINITY, total = 0.0;
        uint32_t rank = 0;
        for (;; rank++) { /* the next price behind the last one, with all its orders */
            double next = side > 0 ? -INFINITY : INFINITY, size = 0.0;
            uint64_t orders = 0;
            for (int i = 0; i < p->count; i++) {
                const plain_order *o = &p->order[i];
                if (o->side != side || (side > 0 ? o->price >= price : o->price <= price)) continue;
                if (side > 0 ? o->price > next : o->price < next) next = o->price, size = 0.0, orders = 0;
                if (o->price == next) size += o->size, orders++;
            }
            tf_book_level got = {0}, same = {0};
            if (orders == 0) {
                CHECK(!tf_book_level_at(book, side, rank, &got));
                break;
            }
            CHECK(tf_book_level_at(book, side, rank, &got));
            CHECK(got.price == next && got.size == size && got.orders == orders);
            CHECK(tf_book_level_of(book, side, next, &same) && memcmp(&got, &same, sizeof got) == 0);
            total += size;
            CHECK(tf_book_cumulative(book, side, rank + 1) == total);
            price = next;
        }
        CHECK(tf_book_levels(book, side) == rank && tf_book_exact_levels(book, side) == rank);
    }
}

/* Sizes are multiples of 1/8, so that every sum is exact in any order. */
static tf_delta random_change(void) {
    const uint64_t pick = next_random();
    tf_delta d = delta((int)(pick % 3) + 1, pick >> 8 & 1 ? 1 : -1, 0.25 * (double)((int)(pick >> 16 & 63) - 32),
                       0.125 * (double)(1 + (pick >> 24 & 255)), 1 + (pick >> 32) % 300);
    if (d.action == TF_DELTA_UPDATE && (pick >> 44) % 20 == 0) d.size = 0.0;
    return d;
}

static void test_against_a_list(uint32_t kind) {
    const tf_book_options options = {.kind = kind, .levels = 64, .orders = 600};
    size_t bytes;
    tf_book *book = build(&options, &bytes);
    static plain_book plain;
    plain.count = 0;
    for (int i = 0; i < 60000; i++) {
        const tf_delta d = i % 6000 == 5999 ? delta(TF_DELTA_CLEAR, 0, 0, 0, 0) : random_change();
        CHECK(tf_book_apply(book, &d) == 1);
        plain_apply(&plain, &d, kind == TF_BOOK_BY_PRICE);
        if (i % 37 == 0 || i < 300) compare(book, &plain);
        if (i % 997 == 0) CHECK(tf_book_check(book, bytes, &options) == TF_OK);
    }
    tf_book_counters c;
    tf_book_counters_of(book, &c);
    CHECK(c.applied == 60000 && c.clears > 3 && c.unknown > 100 && c.overflow == 0 && c.crossed > 1000);
    free(book);
}

/* Sums stay exact whatever comes and goes, where adding and subtracting doubles drifts. */
static void test_sums(void) {
    const tf_book_options options = {.kind = TF_BOOK_BY_ORDER, .levels = 4, .orders = 64};
    size_t bytes;
    tf_book *book = build(&options, &bytes);
    tf_book_level l;
    for (int i = 0; i < 20000; i++) {
        const double size = 1e-8 * (double)(1 + next_random() % 1000000000000u);
        put(book, TF_DELTA_UPDATE, 1, 5.0, size, 1 + next_random() % 60);
        if (i % 3 == 0) put(book, TF_DELTA_DELETE, 1, 0.0, NAN, 1 + next_random() % 60);
    }
    for (uint64_t id = 3; id <= 60; id++) put(book, TF_DELTA_DELETE, 1, NAN, NAN, id);
    put(book, TF_DELTA_ADD, 1, 5.0, 0.1, 1);
    put(book, TF_DELTA_ADD, 1, 5.0, 0.2, 2);
    CHECK(tf_book_level_at(book, 1, 0, &l) && l.size == 0.1 + 0.2 && l.orders == 2);
    /* Beside 1e18 an order of 1e-18 is beyond the digits; it is right again when the large one has gone. */
    put(book, TF_DELTA_ADD, 1, 5.0, 1e18, 3);
    put(book, TF_DELTA_ADD, 1, 5.0, 1e-18, 4);
    put(book, TF_DELTA_ADD, 1, 5.0, 1e-18, 5);
    for (uint64_t id = 1; id <= 3; id++) put(book, TF_DELTA_DELETE, 1, 0.0, 0.0, id);
    CHECK(tf_book_level_at(book, 1, 0, &l) && l.size == 2e-18);
    CHECK(tf_book_check(book, bytes, &options) == TF_OK);
    free(book);
}

static void test_names(void) {
    const tf_book_options options = {.kind = TF_BOOK_BY_ORDER, .levels = 8, .orders = 8};
    size_t bytes;
    tf_book *book = build(&options, &bytes);
    tf_book_level l;
    CHECK(put(book, TF_DELTA_ADD, 1, 10.0, 5.0, 7) && put(book, TF_DELTA_ADD, -1, 11.0, 6.0, 7));
    CHECK(tf_book_orders(book) == 2);
    CHECK(!put(book, TF_DELTA_DELETE, 0, 10.0, 5.0, 7)); /* on both sides */
    CHECK(put(book, TF_DELTA_DELETE, 1, 99.0, 5.0, 7) && tf_book_levels(book, 1) == 0);
    CHECK(put(book, TF_DELTA_UPDATE, 0, 12.0, 4.0, 7)); /* found among the asks */
    CHECK(tf_book_level_at(book, -1, 0, &l) && l.price == 12.0 && l.size == 4.0);
    CHECK(!put(book, TF_DELTA_UPDATE, 0, 12.0, 4.0, 8) && !put(book, TF_DELTA_ADD, 0, 12.0, 4.0, 7));
    CHECK(put(book, TF_DELTA_ADD, -1, 12.0, 1.0, 0) && put(book, TF_DELTA_UPDATE, -1, 12.0, 2.0, 0));
    CHECK(tf_book_level_at(book, -1, 0, &l) && l.size == 6.0 && l.orders == 2);
    CHECK(put(book, TF_DELTA_ADD, 1, -0.0, 1.0, 0) && put(book, TF_DELTA_DELETE, 1, 0.0, 1.0, 0));
    CHECK(tf_book_levels(book, 1) == 0);
    tf_delta d = delta(TF_DELTA_ADD, 1, 9.0, 1.0, 44);
    d.flags |= TF_FLAG_TOB;
    CHECK(tf_book_apply(book, &d));
    d.price = 8.0;
    d.order_id = 45;
    CHECK(tf_book_apply(book, &d) && tf_book_levels(book, 1) == 1);
    CHECK(tf_book_level_at(book, 1, 0, &l) && l.price == 8.0);
    CHECK(tf_book_check(book, bytes, &options) == TF_OK);
    free(book);

    const tf_book_options top = {.kind = TF_BOOK_TOP};
    book = build(&top, &bytes);
    CHECK(put(book, TF_DELTA_ADD, 1, 10.0, 5.0, 1) && put(book, TF_DELTA_ADD, 1, 9.0, 6.0, 2));
    CHECK(put(book, TF_DELTA_UPDATE, -1, 12.0, 1.0, 0) && tf_book_levels(book, 1) == 1 && tf_book_orders(book) == 2);
    CHECK(tf_book_level_at(book, 1, 0, &l) && l.price == 9.0 && l.size == 6.0);
    CHECK(put(book, TF_DELTA_DELETE, 1, 1.0, 0.0, 0) && tf_book_levels(book, 1) == 0);
    CHECK(tf_book_check(book, bytes, &top) == TF_OK);
    free(book);
}

static void test_overflow(uint32_t kind) {
    /* Every level keeps one order, and the table has room for more than both sides hold. */
    const tf_book_options options = {.kind = kind, .levels = 20, .orders = 100};
    const tf_book_options wide = {.kind = kind, .levels = 1000, .orders = 5000};
    size_t bytes, wide_bytes;
    tf_book *book = build(&options, &bytes), *truth = build(&wide, &wide_bytes);
    uint32_t exact_seen = 0, inexact = 0;
    for (int i = 0; i < 39500; i++) {
        tf_delta d = random_change();
        d.order_id = 1 + (uint64_t)(4.0 * (d.price + 16.0));
        if (i % 2000 == 1999) d = delta(TF_DELTA_CLEAR, 0, 0, 0, 0);
        tf_book_apply(book, &d);
        tf_book_apply(truth, &d);
        for (int side = -1; side <= 1; side += 2) {
            const uint32_t exact = tf_book_exact_levels(book, side);
            CHECK(exact <= tf_book_levels(book, side) && tf_book_levels(book, side) <= 20);
            for (uint32_t rank = 0; rank < exact; rank++) {
                tf_book_level a, b;
                CHECK(tf_book_level_at(book, side, rank, &a) && tf_book_level_at(truth, side, rank, &b));
                CHECK(memcmp(&a, &b, sizeof a) == 0);
            }
            exact_seen += exact;
            inexact += tf_book_levels(book, side) - exact;
        }
        if (i % 101 == 0) CHECK(tf_book_check(book, bytes, &options) == TF_OK);
    }
    CHECK(exact_seen > 100000 && inexact > 1000);
    tf_book_counters c;
    tf_book_counters_of(book, &c);
    CHECK(c.overflow > 1000 && tf_book_state(book) & TF_BOOK_TRUNCATED && !(tf_book_state(truth) & TF_BOOK_TRUNCATED));
    put(book, TF_DELTA_CLEAR, 0, 0, 0, 0);
    CHECK(!(tf_book_state(book) & TF_BOOK_TRUNCATED));
    free(book);
    free(truth);
}

/* A full table of orders pushes out worst levels, and what is left of the best ones is right. */
static void test_full_table(void) {
    const tf_book_options options = {.kind = TF_BOOK_BY_ORDER, .levels = 64, .orders = 100};
    const tf_book_options wide = {.kind = TF_BOOK_BY_ORDER, .levels = 64, .orders = 5000};
    size_t bytes, wide_bytes;
    tf_book *book = build(&options, &bytes), *truth = build(&wide, &wide_bytes);
    uint32_t exact_seen = 0;
    for (int i = 0; i < 30000; i++) {
        tf_delta d = random_change();
        if (i % 1000 == 999) d = delta(TF_DELTA_CLEAR, 0, 0, 0, 0);
        tf_book_apply(book, &d);
        tf_book_apply(truth, &d);
        for (int side = -1; side <= 1; side += 2) {
            const uint32_t exact = tf_book_exact_levels(book, side);
            for (uint32_t rank = 0; rank < exact; rank++) {
                tf_book_level a, b;
                CHECK(tf_book_level_at(book, side, rank, &a) && tf_book_level_at(truth, side, rank, &b));
                CHECK(memcmp(&a, &b, sizeof a) == 0);
            }
            exact_seen += exact;
        }
        CHECK(tf_book_orders(book) <= 100);
        if (i % 101 == 0) CHECK(tf_book_check(book, bytes, &options) == TF_OK);
    }
    tf_book_counters c;
    tf_book_counters_of(book, &c);
    CHECK(c.overflow > 100 && exact_seen > 10000);
    free(book);
    free(truth);
}

static void test_sequence_and_time(void) {
    const tf_book_options options = {.kind = TF_BOOK_BY_PRICE, .rules = TF_BOOK_CONTIGUOUS, .levels = 8};
    size_t bytes;
    tf_book *book = build(&options, &bytes);
    tf_book_counters c;
    tf_delta d = delta(TF_DELTA_ADD, 1, 1.0, 1.0, 0);
    d.ts_event = 100;
    for (uint64_t sequence = 5; sequence <= 7; sequence++) {
        d.sequence = sequence;
        CHECK(tf_book_apply(book, &d) && tf_book_apply(book, &d) && !(tf_book_state(book) & TF_BOOK_STALE));
    }
    d.sequence = 9;
    CHECK(tf_book_apply(book, &d) && tf_book_state(book) & TF_BOOK_STALE);
    d.sequence = 10;
    CHECK(tf_book_apply(book, &d) && tf_book_state(book) & TF_BOOK_STALE);
    d.ts_event = 99;
    d.price = 2.0;
    CHECK(!tf_book_apply(book, &d) && tf_book_levels(book, 1) == 1);
    tf_delta clear = delta(TF_DELTA_CLEAR, 0, 0, 0, 0);
    clear.ts_event = 50;
    clear.sequence = 3;
    clear.flags = TF_FLAG_SNAPSHOT;
    CHECK(tf_book_apply(book, &clear) && tf_book_state(book) == 0);
    d.flags = TF_FLAG_SNAPSHOT;
    d.ts_event = 10; /* orders of a snapshot may be older */
    d.sequence = 20;
    CHECK(tf_book_apply(book, &d) && tf_book_state(book) == 0);
    d.flags |= TF_FLAG_LAST;
    CHECK(tf_book_apply(book, &d) && tf_book_state(book) == TF_BOOK_WHOLE);
    d.flags = TF_FLAG_LAST;
    d.ts_event = 50;
    d.sequence = 21;
    CHECK(tf_book_apply(book, &d) && tf_book_state(book) == TF_BOOK_WHOLE && tf_book_sequence(book) == 21);
    d.sequence = 4;
    CHECK(tf_book_apply(book, &d) && tf_book_state(book) == (TF_BOOK_WHOLE | TF_BOOK_STALE));
    tf_book_counters_of(book, &c);
    CHECK(c.gaps == 1 && c.out_of_order == 1 && c.backward == 1 && c.clears == 1 && c.invalid == 0);
    free(book);

    const tf_book_options keep = {.kind = TF_BOOK_BY_PRICE, .rules = TF_BOOK_KEEP_BACKWARD, .levels = 8};
    book = build(&keep, &bytes);
    d = delta(TF_DELTA_ADD, 1, 1.0, 1.0, 0);
    d.ts_event = 100;
    d.sequence = 7;
    tf_book_apply(book, &d);
    d.ts_event = 99;
    d.price = 2.0;
    d.sequence = 70; /* may skip */
    tf_depth10 depth;
    CHECK(tf_book_apply(book, &d) && tf_book_levels(book, 1) == 2);
    CHECK(tf_book_depth(book, &depth) == TF_BOOK_WHOLE && depth.ts_event == 100);
    free(book);
}

static double hostile(double normal) {
    static const double odd[] = {0.0, -0.0, -1.0, 1e12, 1e-12, 1e300, 5e-324, 1e18, -1e18, 1.1e18};
    const uint64_t pick = next_random() % 200;
    if (pick == 0) return NAN;
    if (pick == 1) return INFINITY;
    if (pick == 2) return -INFINITY;
    if (pick < 3 + sizeof odd / sizeof odd[0]) return odd[pick - 3];
    return normal;
}

static void random_event(tf_book *book, uint64_t *time) {
    tf_delta d = random_change();
    const uint64_t pick = next_random();
    if (pick % 3001 == 0) d.action = TF_DELTA_CLEAR;
    *time += pick % 1000;
    d.ts_event = d.ts_init = pick % 50 == 0 && *time > 5000 ? *time - 5000 : *time;
    d.price = hostile(d.price);
    d.size = hostile(d.size);
    if (pick >> 8 & 1) d.order_id = pick >> 40;
    d.sequence = (pick >> 16) % 5 ? 0 : pick >> 50;
    if ((pick >> 20) % 16 == 0) d.flags = (uint8_t)(pick >> 30);
    if ((pick >> 25) % 64 == 0) d.action = (uint8_t)(pick >> 38);
    if ((pick >> 26) % 64 == 0) d.side = (int8_t)(pick >> 46);
    tf_book_apply(book, &d);
}

static void ask_everything(const tf_book *book) {
    tf_depth10 depth;
    tf_book_level l;
    tf_book_depth(book, &depth);
    for (int side = -1; side <= 1; side += 2) {
        for (uint32_t rank = 0; rank < tf_book_levels(book, side); rank++) {
            CHECK(tf_book_level_at(book, side, rank, &l) && isfinite(l.price) && l.size > 0.0 && isfinite(l.size));
        }
        CHECK(isfinite(tf_book_cumulative(book, side, UINT32_MAX)));
        tf_book_exact_levels(book, side);
    }
}

static void test_hostile_and_damaged(uint32_t kind) {
    const tf_book_options options = {.kind = kind, .rules = TF_BOOK_KEEP_BACKWARD, .levels = 40, .orders = 200};
    size_t bytes;
    tf_book *book = build(&options, &bytes);
    tf_book *copy = aligned_alloc(64, bytes);
    uint64_t time = 1000000;
    for (int i = 0; i < 100000; i++) {
        random_event(book, &time);
        if (i % 499 == 0) {
            CHECK(tf_book_check(book, bytes, &options) == TF_OK);
            ask_everything(book);
        }
    }
    tf_book_counters c;
    tf_book_counters_of(book, &c);
    CHECK(c.invalid > 100 && c.backward > 100 && c.out_of_order > 10 && c.unknown > 100 && c.applied > 10000);
    CHECK(kind == TF_BOOK_TOP || c.overflow > 100);
    while (kind != TF_BOOK_TOP && tf_book_levels(book, 1) < 10) random_event(book, &time);
    memcpy(copy, book, bytes);
    const uint64_t seed_before = seed, time_before = time;
    for (int i = 0; i < 5000; i++) random_event(book, &time);
    seed = seed_before;
    time = time_before;
    for (int i = 0; i < 5000; i++) random_event(copy, &time);
    CHECK(memcmp(book, copy, bytes) == 0);
    CHECK(tf_book_check(copy, bytes - 64, &options) == TF_ERR_SHAPE);
    tf_book_options other = options;
    other.rules = 0;
    CHECK(tf_book_check(copy, bytes, &other) == TF_ERR_FORMAT);
    long refused = 0;
    for (int trial = 0; trial < 20000; trial++) { /* any damage: refused or harmless, never out of bounds (ASan) */
        const size_t at = trial < 4000 ? (size_t)trial % bytes : (size_t)(next_random() % bytes);
        const size_t also = trial % 3 ? at : (size_t)(next_random() % bytes);
        ((unsigned char *)copy)[at] ^= (unsigned char)(1u << trial % 8);
        if (also != at) ((unsigned char *)copy)[also] = (unsigned char)next_random();
        if (tf_book_check(copy, bytes, &options) == TF_OK) {
            uint64_t later = time;
            for (int i = 0; i < 20; i++) random_event(copy, &later);
            ask_everything(copy);
            CHECK(tf_book_check(copy, bytes, &options) == TF_OK);
        } else {
            refused++;
        }
        memcpy(copy, book, bytes);
    }
    CHECK(refused > 500);
    tf_book_reset(book);
    tf_book *fresh = build(&options, &bytes);
    tf_book_counters_of(book, &c);
    CHECK(c.applied == 0 && c.invalid == 0 && tf_book_state(book) == 0 && tf_book_levels(book, 1) == 0);
    CHECK(memcmp(book, fresh, bytes) == 0);
    free(book);
    free(copy);
    free(fresh);
}

static void test_init_refuses(void) {
    size_t bytes;
    const tf_book_options good = {.kind = TF_BOOK_BY_ORDER, .levels = 4, .orders = 4};
    tf_book *book = build(&good, &bytes), *other = NULL;
    tf_book_options bad[] = {good, good, good, good, good, good, good};
    bad[0].kind = 0;
    bad[1].kind = 4;
    bad[2].rules = 4;
    bad[3].levels = 0;
    bad[4].levels = TF_BOOK_MAX_LEVELS + 1;
    bad[5].orders = 0;
    bad[6].orders = TF_BOOK_MAX_ORDERS + 1;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const tf_status wanted = i < 3 ? TF_ERR_ARGUMENT : TF_ERR_SHAPE;
        CHECK(tf_book_size(&bad[i], &bytes) == wanted);
        CHECK(tf_book_init(book, 1 << 20, &bad[i], &other) == wanted);
        CHECK(tf_book_check(book, bytes, &bad[i]) == wanted);
    }
    CHECK(tf_book_size(NULL, &bytes) == TF_ERR_ARGUMENT && tf_book_size(&good, NULL) == TF_ERR_ARGUMENT);
    CHECK(tf_book_init(book, bytes - 1, &good, &other) == TF_ERR_MEMORY);
    CHECK(tf_book_init((char *)book + 8, bytes, &good, &other) == TF_ERR_ARGUMENT);
    CHECK(tf_book_init(NULL, bytes, &good, &other) == TF_ERR_ARGUMENT && other == NULL);
    free(book);
}

static void test_no_allocation(void) {
#ifdef COUNTS_ALLOCATIONS
    const long at_start = allocations;
    void *volatile probe = malloc(16);
    CHECK(allocations == at_start + 1); /* the counter works */
    free(probe);
    const tf_book_options options = {.kind = TF_BOOK_BY_ORDER, .levels = 40, .orders = 200};
    size_t bytes;
    tf_book *book = build(&options, &bytes);
    tf_depth10 depth;
    uint64_t time = 1000000;
    const long before = allocations;
    for (int i = 0; i < 100000; i++) {
        random_event(book, &time);
        tf_book_depth(book, &depth);
    }
    tf_book_reset(book);
    CHECK(allocations == before);
    free(book);
#endif
}

int main(void) {
    test_init_refuses();
    test_against_a_list(TF_BOOK_BY_PRICE);
    test_against_a_list(TF_BOOK_BY_ORDER);
    test_sums();
    test_names();
    test_overflow(TF_BOOK_BY_PRICE);
    test_overflow(TF_BOOK_BY_ORDER);
    test_full_table();
    test_sequence_and_time();
    for (uint32_t kind = TF_BOOK_TOP; kind <= TF_BOOK_BY_ORDER; kind++) test_hostile_and_damaged(kind);
    test_no_allocation();
    return done("test_book");
}
