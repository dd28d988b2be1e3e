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

enum { MOST = 512 };

/* A number that the parameter accepts: its initial one, and the first other instrument where one must be named. */
static double initial(const tf_feature_param *param) { return param->type == TF_PARAM_LEGS ? 1.0 : param->initial; }

static int32_t all_specs(tf_feature_spec *specs) {
    const int32_t kinds = tf_feature_kinds();
    CHECK(kinds <= MOST);
    for (int32_t kind = 0; kind < kinds; kind++) {
        const tf_feature_info *info = tf_feature_describe(kind);
        specs[kind] = (tf_feature_spec){.kind = (uint32_t)kind, .scale = 1.0};
        for (int i = 0; i < TF_FEATURE_PARAMS; i++) {
            specs[kind].param[i] = initial(&info->param[i]);
            if (info->param[i].name == NULL) continue;
            if (strcmp(info->param[i].name, "capacity") == 0) specs[kind].param[i] = 64;
            if (strcmp(info->param[i].name, "horizon") == 0)
                specs[kind].param[i] = 1e8; /* 64 trades must not fill it */
        }
    }
    return kinds;
}

/* Every feature again, on another clock and behind a stage each. */
static int32_t mixed_specs(tf_feature_spec *specs) {
    static const tf_clock clocks[] = {{TF_CLOCK_TIME, 0, 5e6},    {TF_CLOCK_TIME, 1, 7e6}, {TF_CLOCK_TICKS, 0, 3},
                                      {TF_CLOCK_TICKS, 1, 2},     {TF_CLOCK_VOLUME, 1, 2}, {TF_CLOCK_NOTIONAL, 1, 1e5},
                                      {TF_CLOCK_IMBALANCE, 1, 4}, {TF_CLOCK_BARS, 0, 0},   {TF_CLOCK_EVENT, 0, 0}};
    const int32_t kinds = all_specs(specs);
    for (int32_t i = 0; i < kinds; i++) {
        specs[i].clock = clocks[(size_t)i % (sizeof clocks / sizeof clocks[0])];
        const tf_stage_info *info = tf_stage_describe(i % tf_stage_kinds());
        specs[i].stages = 1;
        specs[i].stage[0].kind = (uint32_t)(i % tf_stage_kinds());
        for (int k = 0; k < 2; k++) {
            double value = info->param[k].initial;
            if (value < -16 && info->param[k].type == TF_PARAM_WINDOW) value = -16;
            if (value > 16 && info->param[k].type == TF_PARAM_COUNT) value = fmax(16, info->param[k].low);
            specs[i].stage[0].param[k] = value;
        }
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
    *time += next_random() % 4000000; /* the longest window, five minutes, passes in 200,000 events */
    const uint64_t ts = next_random() % 50 == 0 && *time > 5000000 ? *time - 5000000 : *time;
    const double mid = 65000.0 + 0.01 * (double)(next_random() % 7);
    switch (next_random() % 6) {
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
    case 3: {
        const double bid = hostile(mid - 0.02), ask = hostile(mid + 0.02);
        const tf_quote quote = {bid, ask, 1.0, 1.0, ts, ts, 0, 0};
        tf_features_on_leg(features, (uint32_t)(next_random() % 2), &quote);
        break;
    }
    case 4: {
        const tf_external event = {{hostile(uniform()), hostile(uniform()), hostile(uniform()), hostile(uniform())},
                                   ts,
                                   ts,
                                   (uint32_t)(next_random() % 3),
                                   0};
        tf_features_on_external(features, &event);
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
        for (int i = 0; i < TF_FEATURE_PARAMS; i++) spec.param[i] = initial(&info->param[i]);
        uint64_t events, nanoseconds;
        CHECK(tf_feature_lookback(&spec, &events, &nanoseconds) == TF_OK);
        const int outside =
            info->param[0].type == TF_PARAM_SOURCE; /* a source that is silent must not hold anything up */
        CHECK(outside ? events == 0 && nanoseconds == 0 : events >= 1 || nanoseconds > 0);
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
    tf_feature_spec specs[MOST];
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
static void test_hostile_and_copies(int32_t (*choose)(tf_feature_spec *), int everything_gets_ready) {
    tf_feature_spec specs[MOST];
    const int32_t count = choose(specs);
    void *memory, *copy;
    size_t bytes;
    tf_features *features = build(specs, count, &memory, &bytes);
    copy = aligned_alloc(64, bytes);
    double row[MOST], other[MOST];
    float out[MOST];
    uint64_t time = 1000000000;
    for (int i = 0; i < 200000; i++) {
        random_event(features, &time);
        if (i % 64) continue;
        tf_features_row(features, row);
        tf_features_emit(features, out);
        for (int32_t k = 0; k < count; k++) CHECK(isfinite(row[k]) && isfinite(out[k]));
    }
    tf_feature_counters counters;
    tf_features_counters(features, &counters);
    CHECK(counters.accepted > 10000 && counters.invalid > 100 && counters.backward > 100 && counters.crossed > 10);
    CHECK(!everything_gets_ready || tf_features_ready(features));
    memcpy(copy, memory, bytes);
    CHECK(tf_features_check(features, copy, bytes) == TF_OK);
    const uint64_t seed_before = seed, time_before = time;
    for (int i = 0; i < 5000; i++) random_event(features, &time);
    seed = seed_before;
    time = time_before;
    for (int i = 0; i < 5000; i++) random_event(copy, &time);
    tf_features_row(features, row);
    tf_features_row(copy, other);
    CHECK(memcmp(row, other, sizeof(double) * (size_t)count) == 0);
    CHECK(memcmp(memory, copy, bytes) == 0);
    CHECK(tf_features_check(features, copy, bytes - 64) == TF_ERR_SHAPE);
    ((unsigned char *)copy)[0] ^= 1;
    CHECK(tf_features_check(features, copy, bytes) == TF_ERR_FORMAT);
    ((unsigned char *)copy)[0] ^= 1;
    for (int trial = 0; trial < 3000; trial++) { /* any damage: refused or harmless, never out of bounds (ASan) */
        const size_t at = trial < 1000 ? (size_t)trial * 4 % bytes : (size_t)(next_random() % bytes);
        ((unsigned char *)copy)[at] ^= 0xff;
        if (tf_features_check(features, copy, bytes) == TF_OK) {
            uint64_t later = time;
            for (int i = 0; i < 20; i++) random_event(copy, &later);
            tf_features_row(copy, row);
            memcpy(copy, memory, bytes);
        }
        ((unsigned char *)copy)[at] = ((unsigned char *)memory)[at];
    }
    tf_features_reset(features);
    tf_features_counters(features, &counters);
    CHECK(counters.accepted == 0 && counters.invalid == 0 && !tf_features_ready(features));
    tf_features *fresh = NULL;
    CHECK(tf_features_init(copy, bytes, specs, count, &fresh) == TF_OK);
    CHECK(memcmp(memory, copy, bytes) == 0); /* reset leaves nothing behind */
    free(memory);
    free(copy);
}

/* Each clock is a series of its own, and the event clock is one of 32. */
#define MOST_CLOCKS 32 /* TF_MAX_SERIES, which is no part of the public header */
static void test_most_clocks(void) {
    tf_feature_spec specs[MOST_CLOCKS];
    memset(specs, 0, sizeof specs);
    for (int i = 0; i < MOST_CLOCKS; i++) {
        specs[i].scale = 1.0;
        specs[i].clock = (tf_clock){TF_CLOCK_TICKS, 0, i + 1};
        for (int p = 0; p < TF_FEATURE_PARAMS; p++) specs[i].param[p] = initial(&tf_feature_describe(0)->param[p]);
    }
    size_t bytes;
    CHECK(tf_features_size(specs, MOST_CLOCKS - 1, &bytes) == TF_OK);
    CHECK(tf_features_size(specs, MOST_CLOCKS, &bytes) == TF_ERR_SHAPE);
    specs[MOST_CLOCKS - 1].clock = specs[0].clock; /* a clock that is there already is no other series */
    CHECK(tf_features_size(specs, MOST_CLOCKS, &bytes) == TF_OK);
    static const tf_clock wrong[] = {
        {TF_CLOCK_TIME, 0, -1e9}, {TF_CLOCK_TIME, 0, 0.0},         {TF_CLOCK_TICKS, 0, -1.0},
        {TF_CLOCK_TICKS, 2, 5.0}, {TF_CLOCK_VOLUME, 0, 5.0},       {TF_CLOCK_VOLUME, 1, -5.0},
        {TF_CLOCK_EVENT, 0, 1.0}, {TF_CLOCK_BARS, 1, 0.0},         {7, 0, 1.0},
        {TF_CLOCK_TIME, 0, NAN},  {TF_CLOCK_NOTIONAL, 1, INFINITY}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        specs[0].clock = wrong[i];
        CHECK(tf_features_size(specs, 1, &bytes) == TF_ERR_ARGUMENT);
    }
}

static void test_no_allocation(void) {
#ifdef COUNTS_ALLOCATIONS
    tf_feature_spec specs[MOST];
    const int32_t count = all_specs(specs);
    void *memory;
    size_t bytes;
    const long at_start = allocations;
    void *volatile probe = malloc(16);
    CHECK(allocations == at_start + 1); /* the counter works */
    free(probe);
    tf_features *features = build(specs, count, &memory, &bytes);
    float out[MOST];
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
    test_hostile_and_copies(all_specs, 1);
    test_hostile_and_copies(mixed_specs, 0);
    test_most_clocks();
    test_no_allocation();
    return done("test_features");
}
