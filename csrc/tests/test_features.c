/* The feature engine and the fixed-point conversion without Python: exactness, hostile input, copies, no allocation. */
#include <float.h>
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

static double uniform(void) { return (double)(next_random() >> 11) * 0x1p-53; }

#ifdef __SIZEOF_INT128__
static void check_fixed(__int128 raw) {
    const double wanted = (double)raw / 1e16, got = tf_fixed128(&raw);
    if (memcmp(&wanted, &got, sizeof got) != 0) {
        fprintf(stderr, "tf_fixed128: high %lld low %llu gave %a, wanted %a\n", (long long)(raw >> 64),
                (unsigned long long)raw, got, wanted);
        failures++;
    }
}

static void test_fixed_point(void) {
    for (int bit = 0; bit < 127; bit++) {
        const __int128 power = (__int128)1 << bit;
        for (int away = -3; away <= 3; away++) {
            check_fixed(power + away);
            check_fixed(-power + away);
            if (bit > 60) { /* ties of the rounding, and one to either side */
                const __int128 half = (__int128)1 << (bit - 53);
                check_fixed(power + half + away);
                check_fixed(power + 3 * half + away);
                check_fixed(-(power + half) + away);
            }
        }
    }
    check_fixed((__int128)((unsigned __int128)1 << 127));
    for (int i = 0; i < 400000; i++) {
        const unsigned __int128 wide = (unsigned __int128)next_random() << 64 | next_random();
        check_fixed((__int128)wide >> (next_random() % 127));
    }
}
#else
static void test_fixed_point(void) {
    const uint64_t one[2] = {UINT64_C(10000000000000000), 0};
    const uint64_t minus[2] = {(uint64_t)-INT64_C(25000000000000000), ~UINT64_C(0)};
    CHECK(tf_fixed128(one) == 1.0 && tf_fixed128(minus) == -2.5);
}
#endif

static void test_fixed64(void) {
    for (int i = 0; i < 100000; i++) {
        const int64_t raw = (int64_t)next_random() >> (next_random() % 63);
        CHECK(tf_fixed64(&raw) == (double)raw / 1e9);
    }
}

static int32_t all_specs(tf_feature_spec *specs) {
    const int32_t kinds = tf_feature_kinds();
    for (int32_t kind = 0; kind < kinds; kind++) {
        const tf_feature_info *info = tf_feature_describe(kind);
        specs[kind] = (tf_feature_spec){.kind = (uint32_t)kind, .scale = 1.0};
        for (int i = 0; i < TF_FEATURE_PARAMS; i++) specs[kind].param[i] = info->param[i].initial;
    }
    return kinds;
}

static tf_features *build(const tf_feature_spec *specs, int32_t count, void **memory, size_t *bytes) {
    tf_features *features = NULL;
    CHECK(tf_features_size(specs, count, bytes) == TF_OK);
    *memory = aligned_alloc(64, *bytes);
    CHECK(*memory != NULL);
    if (*memory == NULL) exit(1);
    memset(*memory, 0xa5, *bytes); /* init must not rely on what was there */
    CHECK(tf_features_init(*memory, *bytes, specs, count, &features) == TF_OK);
    return features;
}

static double hostile(double normal) {
    static const double odd[] = {0.0, -0.0, -1.0, 1e12, 1e-12, 1e300, 5e-324, 1e18, 1e-18};
    const uint64_t pick = next_random() % 200;
    if (pick == 0) return NAN;
    if (pick == 1) return INFINITY;
    if (pick == 2) return -INFINITY;
    if (pick < 3 + sizeof odd / sizeof odd[0]) return odd[pick - 3];
    return normal;
}

static void random_event(tf_features *features, uint64_t *time) {
    *time += next_random() % 1000000;
    const uint64_t ts = next_random() % 50 == 0 && *time > 5000000 ? *time - 5000000 : *time;
    const double mid = 65000.0 + 0.01 * (double)(next_random() % 7);
    switch (next_random() % 4) {
    case 0: {
        const double bid = hostile(mid - 0.01), ask = hostile(mid + 0.01);
        const tf_quote quote = {bid, ask, hostile(uniform()), hostile(uniform()), ts, ts, 0, 0};
        tf_features_on_quote(features, &quote);
        break;
    }
    case 1: {
        const tf_trade trade = {hostile(mid), hostile(uniform()), ts, ts, 0, (int32_t)(next_random() % 4) - 1};
        tf_features_on_trade(features, &trade);
        break;
    }
    case 2: {
        const tf_bar bar = {hostile(mid), hostile(mid + 1), hostile(mid - 1), hostile(mid), hostile(3.0), ts, ts, 0, 0};
        tf_features_on_bar(features, &bar);
        break;
    }
    default: {
        tf_depth10 depth;
        memset(&depth, 0, sizeof depth);
        depth.levels = (uint32_t)(next_random() % 12);
        for (int i = 0; i < TF_DEPTH_LEVELS; i++) {
            depth.bid_price[i] = hostile(mid - 0.01 * (i + 1));
            depth.ask_price[i] = hostile(mid + 0.01 * (i + 1));
            depth.bid_size[i] = hostile(uniform());
            depth.ask_size[i] = hostile(uniform());
        }
        depth.ts_event = depth.ts_init = ts;
        tf_features_on_depth(features, &depth);
    }
    }
}

static void test_table(void) {
    CHECK(tf_feature_kinds() >= 12);
    CHECK(tf_feature_describe(-1) == NULL && tf_feature_describe(tf_feature_kinds()) == NULL);
    for (int32_t kind = 0; kind < tf_feature_kinds(); kind++) {
        const tf_feature_info *info = tf_feature_describe(kind);
        CHECK(info->name[0] && info->unit[0] && info->lookback[0] && info->rule[0] && info->source[0]);
        tf_feature_spec spec = {.kind = (uint32_t)kind, .scale = 1.0};
        for (int i = 0; i < TF_FEATURE_PARAMS; i++) spec.param[i] = info->param[i].initial;
        uint64_t events, nanoseconds;
        CHECK(tf_feature_lookback(&spec, &events, &nanoseconds) == TF_OK && events >= 1);
        for (int i = 0; i < TF_FEATURE_PARAMS; i++) { /* a number that no parameter accepts */
            tf_feature_spec wrong = spec;
            wrong.param[i] = NAN;
            CHECK(tf_feature_lookback(&wrong, &events, &nanoseconds) != TF_OK);
            wrong.param[i] = 1e300;
            CHECK(tf_feature_lookback(&wrong, &events, &nanoseconds) != TF_OK);
        }
    }
}

static void test_init_refuses(void) {
    tf_feature_spec specs[64];
    const int32_t count = all_specs(specs);
    void *memory;
    size_t bytes;
    tf_features *features = build(specs, count, &memory, &bytes);
    CHECK(tf_features_width(features) == count && tf_features_bytes(features) == bytes);
    tf_features *other = NULL;
    CHECK(tf_features_init(memory, bytes - 1, specs, count, &other) == TF_ERR_MEMORY);
    CHECK(tf_features_init((char *)memory + 8, bytes, specs, count, &other) == TF_ERR_ARGUMENT);
    CHECK(tf_features_init(memory, bytes, specs, 0, &other) == TF_ERR_SHAPE);
    CHECK(tf_features_init(memory, bytes, NULL, count, &other) == TF_ERR_ARGUMENT);
    specs[0].kind = 4000000000u;
    CHECK(tf_features_init(memory, bytes, specs, count, &other) == TF_ERR_ARGUMENT);
    all_specs(specs);
    specs[1].scale = 0.0;
    CHECK(tf_features_init(memory, bytes, specs, count, &other) == TF_ERR_ARGUMENT);
    specs[1].scale = NAN;
    CHECK(tf_features_init(memory, bytes, specs, count, &other) == TF_ERR_NONFINITE);
    CHECK(other == NULL);
    free(memory);
}

/* Hostile events: nothing non-finite comes out, a copy made in the middle stays equal, a spoilt block is refused. */
static void test_hostile_and_copies(void) {
    tf_feature_spec specs[64];
    const int32_t count = all_specs(specs);
    void *memory, *copy;
    size_t bytes;
    tf_features *features = build(specs, count, &memory, &bytes);
    copy = aligned_alloc(64, bytes);
    double row[64], other[64];
    float out[64];
    uint64_t time = 1000000000;
    for (int i = 0; i < 200000; i++) {
        random_event(features, &time);
        if (i % 16) continue;
        tf_features_row(features, row);
        tf_features_emit(features, out);
        for (int32_t k = 0; k < count; k++) CHECK(isfinite(row[k]) && isfinite(out[k]));
    }
    tf_feature_counters counters;
    tf_features_counters(features, &counters);
    CHECK(counters.accepted > 10000 && counters.invalid > 100 && counters.backward > 100 && counters.crossed > 10);
    CHECK(tf_features_ready(features));
    memcpy(copy, memory, bytes);
    CHECK(tf_features_check(copy, bytes, specs, count) == TF_OK);
    const uint64_t seed_before = seed, time_before = time;
    for (int i = 0; i < 5000; i++) random_event(features, &time);
    seed = seed_before;
    time = time_before;
    for (int i = 0; i < 5000; i++) random_event(copy, &time);
    tf_features_row(features, row);
    tf_features_row(copy, other);
    CHECK(memcmp(row, other, sizeof(double) * (size_t)count) == 0);
    CHECK(memcmp(memory, copy, bytes) == 0);
    CHECK(tf_features_check(copy, bytes - 64, specs, count) == TF_ERR_SHAPE);
    ((unsigned char *)copy)[0] ^= 1;
    CHECK(tf_features_check(copy, bytes, specs, count) == TF_ERR_FORMAT);
    ((unsigned char *)copy)[0] ^= 1;
    for (size_t at = 0; at < bytes; at += 7) { /* any damage: refused or harmless, never out of bounds (ASan) */
        ((unsigned char *)copy)[at] ^= 0xff;
        if (tf_features_check(copy, bytes, specs, count) == TF_OK && at % 1001 == 0) {
            uint64_t later = time;
            for (int i = 0; i < 20; i++) random_event(copy, &later);
            memcpy(copy, memory, bytes);
        }
        ((unsigned char *)copy)[at] = ((unsigned char *)memory)[at];
    }
    tf_features_reset(features);
    tf_features_counters(features, &counters);
    CHECK(counters.accepted == 0 && counters.invalid == 0 && !tf_features_ready(features));
    free(memory);
    free(copy);
}

static void test_no_allocation(void) {
#ifdef COUNTS_ALLOCATIONS
    tf_feature_spec specs[64];
    const int32_t count = all_specs(specs);
    void *memory;
    size_t bytes;
    const long at_start = allocations;
    void *volatile probe = malloc(16);
    CHECK(allocations == at_start + 1); /* the counter works */
    free(probe);
    tf_features *features = build(specs, count, &memory, &bytes);
    float out[64];
    uint64_t time = 1000000000;
    const long before = allocations;
    for (int i = 0; i < 200000; i++) {
        random_event(features, &time);
        tf_features_emit(features, out);
    }
    tf_features_reset(features);
    CHECK(allocations == before);
    free(memory);
#endif
}

int main(void) {
    test_fixed_point();
    test_fixed64();
    test_table();
    test_init_refuses();
    test_hostile_and_copies();
    test_no_allocation();
    return done("test_features");
}
