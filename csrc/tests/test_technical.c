/* Every technical indicator of the table on short and long windows and on both kinds of clock: its own state is sound,
 * values are finite, and a damaged state is refused or works on without a wild access or a number that is not finite
 * (run under ASan too). */
#include <math.h>
#include <stdint.h>

#include "check.h"
#include "tengri/features.h"

#define TF_FEATURE(ID, name, unit, needs, p0, p1, p2, p3, lookback, rule, source, text) #name,
static const char *const NAMES[] = {
#include "features/technical.def"
};
#undef TF_FEATURE

enum { STEPS = 300, ROUNDS = 200, AFTER = 150 };

static uint64_t bits = 88172645463325252u;

static uint64_t any(void) {
    bits ^= bits << 13;
    bits ^= bits >> 7;
    bits ^= bits << 17;
    return bits;
}

static void *block_of(size_t bytes) {
    void *memory = aligned_alloc(64, bytes);
    if (memory == NULL) abort();
    return memory;
}

/* A flat stretch, ticks, and now and then a price that is wrong by six orders of magnitude. */
static double price_at(int i) {
    const double price = 65000.0 + (i % 100 < 40 ? 0.0 : 0.01 * (double)(any() % 7));
    return any() % 50 == 0 ? price * 1e6 : price;
}

static int step(tf_features *f, int i, int bars) {
    const uint64_t time = UINT64_C(1000000000) * (uint64_t)(i + 1);
    const double price = price_at(i);
    double value = 0.0;
    if (bars) {
        const tf_bar bar = {price, price + 0.01 * (double)(any() % 3), price, price, (double)(any() % 4), time, time, 0,
                            0};
        tf_features_on_bar(f, &bar);
    } else {
        const tf_quote quote = {price, price, 1.0, 1.0, time, time, 0, 0};
        const tf_trade trade = {price, 1.0 + (double)(any() % 4), time, time, 0, 1};
        tf_features_on_quote(f, &quote);
        tf_features_on_trade(f, &trade);
    }
    tf_features_row(f, &value);
    return isfinite(value);
}

static void damage(char *memory, size_t bytes) {
    for (uint64_t flips = 1 + any() % 3; flips > 0; flips--) {
        const size_t at = bytes / 3 + any() % (bytes - bytes / 3);
        const size_t word = at & ~(size_t)7;
        uint64_t x = any() % 4 == 0 ? UINT64_C(0x7ff0000000000000) : any() % 2 ? UINT64_MAX : any();
        switch (any() % 3) {
        case 0: memory[at] = (char)any(); break;
        case 1: memory[at] = (char)(memory[at] ^ (1 << any() % 8)); break;
        default: memcpy(memory + word, &x, sizeof x);
        }
    }
}

static long refused, taken;

static void test(const tf_feature_spec *spec, int bars) {
    size_t bytes = 0;
    tf_features *f = NULL, *like = NULL;
    CHECK(tf_features_size(spec, 1, &bytes) == TF_OK);
    char *memory = block_of(bytes), *other = block_of(bytes), *bad = block_of(bytes);
    CHECK(tf_features_init(memory, bytes, spec, 1, &f) == TF_OK &&
          tf_features_init(other, bytes, spec, 1, &like) == TF_OK);
    int finite = 1;
    for (int i = 0; i < STEPS; i++) {
        finite &= step(f, i, bars);
        if (i % 37 == 0) CHECK(tf_features_check(like, memory, bytes) == TF_OK);
    }
    CHECK(finite);
    for (int round = 0; round < ROUNDS; round++) {
        memcpy(bad, memory, bytes);
        damage(bad, bytes);
        if (tf_features_check(like, bad, bytes) != TF_OK) {
            refused++;
            continue;
        }
        taken++;
        finite = 1;
        for (int i = 0; i < AFTER; i++) finite &= step((tf_features *)(void *)bad, STEPS + i, bars);
        CHECK(finite);
    }
    free(memory), free(other), free(bad);
}

int main(void) {
    for (size_t n = 0; n < sizeof NAMES / sizeof *NAMES; n++) {
        int32_t kind = 0;
        while (kind < tf_feature_kinds() && strcmp(tf_feature_describe(kind)->name, NAMES[n]) != 0) kind++;
        CHECK(kind < tf_feature_kinds());
        if (kind == tf_feature_kinds()) continue;
        const tf_feature_info *info = tf_feature_describe(kind);
        tf_feature_spec spec;
        memset(&spec, 0, sizeof spec);
        spec.kind = (uint32_t)kind;
        spec.scale = 1.0;
        for (int i = 0; i < TF_FEATURE_PARAMS; i++) spec.param[i] = info->param[i].initial;
        test(&spec, 0);
        spec.clock.kind = TF_CLOCK_BARS;
        test(&spec, 1);
        if (info->param[0].type != TF_PARAM_COUNT) continue;
        spec.param[0] = info->param[0].low;
        test(&spec, 1);
        if (strcmp(info->param[0].name, "period") != 0) continue;
        spec.param[0] = 100.0; /* the long path of cci */
        test(&spec, 1);
    }
    CHECK(refused > 1000 && taken > 1000);
    return done("test_technical");
}
