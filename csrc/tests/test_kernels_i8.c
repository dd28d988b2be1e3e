/* The integer kernels of kernels.def on every instruction set: integer parts exactly against int64, float parts to the
 * bit against fmaf() and across instruction sets, layouts, saturation corners, NaN, and no byte written outside the
 * outputs.
 *
 * AVX-VNNI is missing on most machines that build this, so its file is compiled here once more with the EVEX encoding
 * of the same instruction, as a test double ("avxvnni by EVEX"): all but the encoding of one instruction is the
 * shipped source. */
#if defined(TF_HAVE_AVX512VNNI) && defined(__GNUC__) && !defined(__clang__)
#define TEST_DOUBLE_EVEX 1
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512vl,avx512vnni")
#define TF_TEST_EVEX 1
#include "nn/attend_i8_avxvnni.c"
#include "nn/gemv_i8_avxvnni.c"
#pragma GCC pop_options
#endif

#include "check.h"

#include "nn/attend_i8.h"
#include "nn/gemv_i8.h"
#include "nn/lstm_i8.h"

#include <math.h>

typedef struct set {
    const char *name;
    tf_kernels kernels;
} set;
static set sets[TF_ISA_COUNT + 1];
static int set_count;

static void collect(void) {
    for (int isa = 0; isa < TF_ISA_COUNT; isa++) {
        if (tf_isa_available((tf_isa)isa))
            sets[set_count++] = (set){tf_isa_name((tf_isa)isa), *tf_kernels_of((tf_isa)isa)};
        else printf("test_kernels_i8: %s is not available here\n", tf_isa_name((tf_isa)isa));
    }
#ifdef TEST_DOUBLE_EVEX
    if (tf_isa_available(TF_ISA_AVX512VNNI)) {
        set *twin = &sets[set_count++];
        *twin = (set){"avxvnni by EVEX", *tf_kernels_of(TF_ISA_AVX2)};
        twin->kernels.gemv_i8 = tf_gemv_i8_test_double_evex;
        twin->kernels.gemv_i8a16 = tf_gemv_i8a16_test_double_evex;
        twin->kernels.dense_i8 = tf_dense_i8_test_double_evex;
        twin->kernels.lstm_fused_i8 = tf_lstm_fused_i8_test_double_evex;
        twin->kernels.lstm_finish_i8 = tf_lstm_finish_i8_test_double_evex;
        twin->kernels.lstm_finish_i8a16 = tf_lstm_finish_i8a16_test_double_evex;
        twin->kernels.attend_i8 = tf_attend_i8_test_double_evex;
    }
#endif
}

/* A block of exactly `bytes`, `shift` bytes off alignment, so that ASan sees an access beyond; guard bytes around it
 * where ASan is not there. */
enum { GUARD = 64, GUARD_BYTE = 0xA5 };
typedef struct block {
    unsigned char *whole, *data;
    size_t bytes, room;
} block;

static block take(size_t bytes, size_t shift) {
#ifdef __SANITIZE_ADDRESS__
    const size_t guard = 0;
#else
    const size_t guard = GUARD;
#endif
    const size_t room = bytes + shift + 2 * guard;
    block b = {malloc(room), NULL, bytes, room};
    if (b.whole == NULL) abort();
    memset(b.whole, GUARD_BYTE, room);
    b.data = b.whole + guard + shift;
    return b;
}

static void give(block *b) {
    int harmed = 0;
    for (unsigned char *at = b->whole; at < b->data; at++) harmed |= *at != GUARD_BYTE;
    for (unsigned char *at = b->data + b->bytes; at < b->whole + b->room; at++) harmed |= *at != GUARD_BYTE;
    CHECK(!harmed);
    free(b->whole);
}

static int8_t weight(unsigned *seed) { return (int8_t)((int)(noise(seed) * 63.0f)); }
static int32_t up16(int32_t n) { return (n + 15) / 16 * 16; }
static int same(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

/* One layer with random or extreme weights: unpacked, packed and its expected z. */
typedef struct layer {
    int32_t rows, k;
    int8_t *w;
    block packed, scale, corr, base, q;
} layer;

static layer make(int32_t rows, int32_t k, int mode, int a16, size_t shift, unsigned *seed) {
    layer l = {.rows = rows, .k = k, .w = malloc((size_t)rows * (size_t)k)};
    l.packed = take(tf_packed_i8(rows, k), shift);
    l.scale = take(sizeof(float) * (size_t)up16(rows), 4 * shift);
    l.corr = take(sizeof(int32_t) * (size_t)up16(rows), 4 * shift);
    l.base = take(sizeof(float) * (size_t)up16(rows), 4 * shift);
    l.q = take(a16 ? tf_plane_i8a16(k) + (size_t)up16(k) : (size_t)up16(k), shift);
    float *own = malloc(sizeof(float) * (size_t)rows);
    for (int32_t i = 0; i < rows; i++) own[i] = 0.001f + fabsf(noise(seed));
    for (size_t i = 0; i < (size_t)rows * (size_t)k; i++)
        l.w[i] = mode == 0 ? weight(seed) : mode == 1 ? 127 : mode == 2 ? -127 : (int8_t)(i % 2 ? 127 : -127);
    tf_pack_i8(l.w, rows, k, k, (int8_t *)l.packed.data);
    tf_scale_i8(own, 0.01f, rows, (float *)l.scale.data);
    tf_corr_i8((int8_t *)l.packed.data, rows, k, (int32_t *)l.corr.data);
    for (int32_t i = 0; i < up16(rows); i++) ((float *)l.base.data)[i] = noise(seed);
    for (size_t i = 0; i < l.q.bytes; i++)
        l.q.data[i] = (unsigned char)(mode == 0 ? (int)(noise(seed) * 64.0f + 128.0f) : i % 3 && mode == 3 ? 0 : 255);
    free(own);
    return l;
}

static void drop(layer *l) {
    free(l->w);
    give(&l->packed), give(&l->scale), give(&l->corr), give(&l->base), give(&l->q);
}

/* Exact integers, then the float steps of gemv_i8.h by the library's fma. */
static float expected(const layer *l, int32_t row, int a16) {
    int64_t high = 0, low = 0;
    const uint8_t *q = l->q.data;
    for (int32_t i = 0; i < l->k; i++) {
        const int64_t w = l->w[(size_t)row * (size_t)l->k + (size_t)i];
        high += w * (q[i] - 128);
        if (a16) low += w * q[tf_plane_i8a16(l->k) + (size_t)i];
    }
    CHECK(high == (int32_t)high && low == (int32_t)low);
    const float sum = a16 ? fmaf(256.0f, (float)high, (float)low) : (float)high;
    return fmaf(((float *)l->scale.data)[row], sum, ((float *)l->base.data)[row]);
}

static void check_gemv(const tf_kernels *kernels, int32_t rows, int32_t k, int mode, size_t shift, unsigned *seed) {
    for (int a16 = 0; a16 < 2; a16++) {
        layer l = make(rows, k, mode, a16, shift, seed);
        block z = take(sizeof(float) * (size_t)up16(rows), 4 * shift);
        (a16 ? kernels->gemv_i8a16 : kernels->gemv_i8)((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data,
                                                       (int32_t *)l.corr.data, (float *)l.base.data, (float *)z.data,
                                                       rows, k);
        for (int32_t i = 0; i < rows; i++) CHECK(same(((float *)z.data)[i], expected(&l, i, a16)));
        give(&z);
        drop(&l);
    }
}

static void test_gemv(const tf_kernels *kernels) {
    static const int32_t ROWS[] = {1, 2, 15, 16, 17, 31, 33, 48, 63, 64, 65, 97, 112, 128, 129, 193, 240, 257, 1000};
    static const int32_t COLUMNS[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 20, 31, 33, 64, 65, 100, 1000};
    unsigned seed = 1;
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++)
        for (size_t c = 0; c < sizeof COLUMNS / sizeof *COLUMNS; c++)
            check_gemv(kernels, ROWS[r], COLUMNS[c], (int)(c % 4), (r + c) % 3, &seed);
    /* Up to the bound on k, at the corners of the sums. */
    for (int mode = 0; mode < 4; mode++) {
        check_gemv(kernels, 17, TF_MOST_I8, mode, 1, &seed);
        check_gemv(kernels, 65, 518, mode, 0, &seed);
        check_gemv(kernels, 128, 4099, mode, 0, &seed);
    }
}

static void test_packing(void) {
    CHECK(tf_packed_i8(1, 1) == 64 && tf_packed_i8(17, 5) == 32 * 8 && tf_packed_i8(256, 64) == 256 * 64);
    CHECK(tf_packed_i8(0, 4) == 0 && tf_packed_i8(4, 0) == 0 && tf_packed_i8(-1, 4) == 0);
    CHECK(tf_packed_i8(16, TF_MOST_I8) == (size_t)16 * TF_MOST_I8 && tf_packed_i8(16, TF_MOST_I8 + 1) == 0);
    unsigned seed = 5;
    const int32_t hidden = 37, k = 11, rows = 48 * 4;
    int8_t *w = malloc((size_t)(4 * hidden * k)), *packed = malloc(tf_packed_i8(rows, k));
    float scale[4 * 37], got[192];
    int32_t corr[192];
    for (int32_t i = 0; i < 4 * hidden * k; i++) w[i] = weight(&seed);
    for (int32_t i = 0; i < 4 * hidden; i++) scale[i] = 1.0f + (float)i;
    tf_pack_lstm_i8(w, hidden, k, packed);
    tf_corr_i8(packed, rows, k, corr);
    tf_scale_lstm_i8(scale, 0.5f, hidden, got);
    for (int32_t row = 0; row < rows; row++) {
        const int32_t gate = row / 16 % 4, unit = row / 64 * 16 + row % 16;
        const int32_t panel = row / 128 * 128, groups = row < 128 ? 8 : 4;
        int32_t sum = 0;
        for (int32_t c = 0; c < 12; c++) {
            const int8_t at = packed[panel * 12 + c / 4 * groups * 64 + (row - panel) * 4 + c % 4];
            CHECK(at == (unit < hidden && c < k ? w[(gate * hidden + unit) * k + c] : 0));
            sum += at;
        }
        CHECK(corr[row] == -128 * sum);
        const double factor = gate == 2 ? 2 * 1.4426950408889634 : -1.4426950408889634;
        CHECK(got[row] == (unit < hidden ? (float)(factor * scale[gate * hidden + unit] * 0.5) : 0.0f));
    }
    free(w), free(packed);
}

/* ---- quantising ---- */

static float odd_number(int32_t i, unsigned *seed) {
    static const float ODD[] = {0.0f,           -0.0f,    0.5f,     -0.5f,     1.5f,      2.5f,      -2.5f,
                                126.5f,         127.5f,   -127.5f,  -128.5f,   1e9f,      -1e9f,     3e38f,
                                -3e38f,         1e-40f,   -1e-40f,  1e-45f,    INFINITY,  -INFINITY, 2147483648.0f,
                                -2147483648.0f, 32766.5f, 32767.5f, -32767.5f, -32768.5f, 8388607.5f};
    const int32_t count = (int32_t)(sizeof ODD / sizeof *ODD);
    return i % 3 == 0 ? ODD[i / 3 % count] : noise(seed) * (i % 2 ? 100.0f : 40000.0f);
}

static void test_quantize(const tf_kernels *kernels) {
    unsigned seed = 7;
    const float inverses[] = {1.0f, 0.37f, 1e-6f, 300.0f, 1e30f};
    for (int32_t n = 1; n <= 1000; n += n < 140 ? 1 : 43)
        for (size_t s = 0; s < sizeof inverses / sizeof *inverses; s++)
            for (int with_nan = 0; with_nan < 2; with_nan++) {
                const size_t shift = (size_t)n % 4;
                block x = take(sizeof(float) * (size_t)n, 4 * shift), q = take((size_t)up16(n), shift);
                block wide = take(tf_plane_i8a16(n) + (size_t)up16(n), shift);
                float *values = (float *)x.data;
                for (int32_t i = 0; i < n; i++) values[i] = odd_number(i + (int32_t)s, &seed);
                const int32_t bad = with_nan ? n * 2 / 3 : -1;
                if (with_nan) values[bad] = s % 2 ? NAN : -NAN;
                int32_t nan = 2, nan_wide = 0; /* other bits of the flag stay */
                kernels->quantize_i8(values, q.data, inverses[s], n, &nan);
                kernels->quantize_i8a16(values, wide.data, inverses[s], n, &nan_wide);
                CHECK(nan == 2 + with_nan && nan_wide == with_nan);
                for (int32_t i = 0; i < up16(n); i++) {
                    const double v = i < n && i != bad ? nearbyint((double)(values[i] * inverses[s])) : 0.0;
                    const int32_t narrow = (int32_t)fmax(-128, fmin(127, v)) + 128;
                    const int32_t full = (int32_t)fmax(-32767, fmin(32767, v)) + 32768;
                    CHECK(q.data[i] == narrow);
                    CHECK(wide.data[i] * 256 + wide.data[tf_plane_i8a16(n) + (size_t)i] == full);
                }
                give(&x), give(&q);
                /* Between the planes lies room that nobody writes. */
                for (size_t i = (size_t)up16(n); i < tf_plane_i8a16(n); i++) CHECK(wide.data[i] == GUARD_BYTE);
                give(&wide);
            }
}

/* ---- dense ---- */

static void test_dense(const tf_kernels *kernels) {
    unsigned seed = 11;
    static const int32_t ROWS[] = {1, 15, 16, 17, 33, 64, 65, 100, 128, 200, 256};
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++)
        for (int choice = 0; choice < 64; choice++) {
            const int32_t rows = ROWS[r], k = 1 + choice * 3, relu = choice & 3;
            const int with_add = choice >> 2 & 1, with_y = choice >> 3 & 1, with_q = choice >> 4 & 1,
                      bad = choice >> 5 & 1;
            layer l = make(rows, k, 0, 0, (size_t)(choice % 3), &seed);
            float *base = (float *)l.base.data;
            for (int32_t i = rows; i < up16(rows); i++) base[i] = NAN; /* padding may hold anything */
            const int32_t at = rows * 3 / 4;
            if (bad) base[at] = NAN;
            block add = take(sizeof(float) * (size_t)up16(rows), 4), y = take(sizeof(float) * (size_t)up16(rows), 8);
            block yq = take((size_t)up16(rows), 1);
            for (int32_t i = 0; i < up16(rows); i++) ((float *)add.data)[i] = i < rows ? noise(&seed) : NAN;
            int32_t nan = 0;
            kernels->dense_i8((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data, (int32_t *)l.corr.data, base,
                              with_add ? (float *)add.data : NULL, with_y ? (float *)y.data : NULL,
                              with_q ? yq.data : NULL, 21.0f, &nan, rows, k, relu);
            CHECK(nan == (bad && with_q));
            for (int32_t i = 0; i < up16(rows); i++) {
                if (i >= rows) {
                    CHECK(yq.data[i] == (with_q ? 128 : GUARD_BYTE));
                    continue;
                }
                float want = expected(&l, i, 0);
                if (relu & 1) want = want < 0 ? 0 : want;
                if (with_add) want += ((float *)add.data)[i];
                if (relu & 2) want = want < 0 ? 0 : want;
                if (with_y) CHECK(same(((float *)y.data)[i], want));
                const float v = isnan(want) ? 0.0f : fmaxf(-128.0f, fminf(127.0f, nearbyintf(want * 21.0f)));
                CHECK(yq.data[i] == (with_q ? (int)v + 128 : GUARD_BYTE));
            }
            give(&add), give(&y), give(&yq);
            /* In place: y over add and over base. */
            float *copy = malloc(sizeof(float) * (size_t)up16(rows));
            for (int32_t i = 0; i < up16(rows); i++) base[i] = copy[i] = noise(&seed);
            kernels->dense_i8((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data, (int32_t *)l.corr.data, base,
                              copy, copy, NULL, 0.0f, NULL, rows, k, 1);
            for (int32_t i = 0; i < rows; i++) {
                const float z = expected(&l, i, 0);
                CHECK(same(copy[i], (z < 0 ? 0 : z) + base[i]));
            }
            free(copy);
            drop(&l);
        }
}

/* ---- LSTM ---- */

static double sigma(double x) { return 1 / (1 + exp(-x)); }

static void test_gates(const tf_kernels *kernels) {
    unsigned seed = 13;
    for (int32_t blocks = 1; blocks <= 5; blocks++)
        for (int kind = 0; kind < 4; kind++) {
            const float size = kind == 0 ? 1.0f : kind == 1 ? 20.0f : kind == 2 ? 1e-4f : 1e30f;
            block z = take(sizeof(float) * (size_t)(64 * blocks), 4),
                  c = take(sizeof(float) * (size_t)(16 * blocks), 8);
            block h = take(sizeof(float) * (size_t)(16 * blocks), 12);
            float *zs = (float *)z.data, *cs = (float *)c.data, *hs = (float *)h.data;
            float before[80];
            for (int32_t i = 0; i < 64 * blocks; i++) zs[i] = noise(&seed) * size;
            for (int32_t i = 0; i < 16 * blocks; i++) cs[i] = before[i] = noise(&seed) * (kind == 1 ? 30.0f : 1.0f);
            kernels->lstm_gates_i8(zs, cs, hs, blocks);
            float scalar_c[80], scalar_h[80];
            memcpy(scalar_c, before, sizeof scalar_c);
            tf_lstm_gates_i8_scalar(zs, scalar_c, scalar_h, blocks);
            const double log2e = 1.4426950408889634;
            for (int32_t u = 0; u < 16 * blocks; u++) {
                const float *g = zs + u / 16 * 64 + u % 16;
                const double i = sigma(-g[0] / log2e), f = sigma(-g[16] / log2e), t = tanh(g[32] / 2 / log2e),
                             o = sigma(-g[48] / log2e);
                const double next = f * before[u] + i * t;
                CHECK(fabs(cs[u] - next) <= 16.0 / 16777216 * fmax(1, fabs(next)));
                CHECK(fabs(hs[u] - o * tanh(next)) <= 16.0 / 16777216);
                CHECK(same(cs[u], scalar_c[u]) && same(hs[u], scalar_h[u])); /* every instruction set, the same bits */
            }
            /* Any NaN among the gates or in c reaches h of its unit alone, whatever its payload. */
            for (int gate = 0; gate < 5; gate++) {
                const uint32_t payload = 0x7FFFFFFF;
                float poison;
                memcpy(&poison, &payload, sizeof poison);
                for (int32_t i = 0; i < 64 * blocks; i++) zs[i] = noise(&seed);
                for (int32_t i = 0; i < 16 * blocks; i++) cs[i] = noise(&seed);
                const int32_t u = (int32_t)(seed >> 8) % (16 * blocks);
                *(gate < 4 ? &zs[u / 16 * 64 + gate * 16 + u % 16] : &cs[u]) = poison;
                kernels->lstm_gates_i8(zs, cs, hs, blocks);
                for (int32_t i = 0; i < 16 * blocks; i++) CHECK(!isnan(hs[i]) == (i != u));
            }
            give(&z), give(&c), give(&h);
        }
    float zero[64] = {0}, c[16] = {0}, h[16];
    kernels->lstm_gates_i8(zero, c, h, 1);
    for (int i = 0; i < 16; i++) CHECK(c[i] == 0.0f && h[i] == 0.0f);
}

/* The fused steps are the plain kernels one after another, and all instruction sets agree to the bit. */
static void test_lstm(const tf_kernels *kernels) {
    const tf_kernels *scalar = tf_kernels_of(TF_ISA_SCALAR);
    unsigned seed = 17;
    for (int32_t blocks = 1; blocks <= 7; blocks++)
        for (int32_t k = 1; k < 90; k += 11)
            for (int a16 = 0; a16 < 2; a16++) {
                layer l = make(64 * blocks, k, 0, a16, (size_t)(k % 2), &seed);
                const int32_t units = 16 * blocks;
                block c = take(sizeof(float) * (size_t)units, 4), h = take(sizeof(float) * (size_t)units, 4);
                block hq = take((size_t)units, 3);
                float *z = malloc(sizeof(float) * (size_t)(4 * units)), *c2 = malloc(sizeof(float) * (size_t)units);
                float *h2 = malloc(sizeof(float) * (size_t)units);
                uint8_t *q2 = malloc((size_t)units);
                for (int32_t u = 0; u < units; u++) ((float *)c.data)[u] = c2[u] = noise(&seed);
                (a16 ? scalar->gemv_i8a16 : scalar->gemv_i8)((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data,
                                                             (int32_t *)l.corr.data, (float *)l.base.data, z,
                                                             64 * blocks, k);
                scalar->lstm_gates_i8(z, c2, h2, blocks);
                int32_t nan = 0;
                scalar->quantize_i8(h2, q2, 127.0f, units, &nan);
                for (int fused = 0; fused < 2 - a16; fused++) {
                    float *own = malloc(sizeof(float) * (size_t)units);
                    memcpy(own, c.data, sizeof(float) * (size_t)units);
                    if (a16)
                        kernels->lstm_finish_i8a16((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data,
                                                   (int32_t *)l.corr.data, (float *)l.base.data, (float *)c.data,
                                                   (float *)h.data, blocks, k);
                    else if (fused)
                        kernels->lstm_fused_i8((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data,
                                               (int32_t *)l.corr.data, (float *)l.base.data, (float *)c.data,
                                               (float *)h.data, hq.data, 127.0f, &nan, blocks, k);
                    else
                        kernels->lstm_finish_i8((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data,
                                                (int32_t *)l.corr.data, (float *)l.base.data, (float *)c.data,
                                                (float *)h.data, blocks, k);
                    for (int32_t u = 0; u < units; u++) {
                        CHECK(same(((float *)c.data)[u], c2[u]) && same(((float *)h.data)[u], h2[u]));
                        if (fused) CHECK(hq.data[u] == q2[u]);
                    }
                    memcpy(c.data, own, sizeof(float) * (size_t)units);
                    free(own);
                }
                CHECK(nan == 0);
                if (!a16) { /* NaN is stored in h, reported, and quantised as 0 */
                    ((float *)l.base.data)[16 * 3 + 5] = NAN;
                    kernels->lstm_fused_i8((int8_t *)l.packed.data, l.q.data, (float *)l.scale.data,
                                           (int32_t *)l.corr.data, (float *)l.base.data, (float *)c.data,
                                           (float *)h.data, hq.data, 127.0f, &nan, blocks, k);
                    CHECK(nan == 1 && isnan(((float *)h.data)[5]) && hq.data[5] == 128 && hq.data[4] == q2[4]);
                }
                free(z), free(c2), free(h2), free(q2);
                give(&c), give(&h), give(&hq);
                drop(&l);
            }
}

/* ---- attention ---- */

typedef struct ring {
    int32_t heads, group, dim, value_dim, slots;
    float *k, *v; /* [slots][kv_heads * dim], as given */
    block keys, corr, values;
} ring;

static double clamped(float x, float inverse) { return fmax(-128, fmin(127, nearbyint((double)(x * inverse)))); }

static void test_attend(const tf_kernels *kernels) {
    static const int32_t SHAPES[][5] = {/* heads, group, dim, value_dim, slots */
                                        {4, 1, 16, 16, 128}, {1, 1, 1, 1, 16},  {2, 2, 7, 5, 32},   {6, 3, 20, 33, 48},
                                        {3, 1, 64, 64, 80},  {11, 1, 8, 8, 64}, {4, 2, 13, 16, 272}};
    unsigned seed = 19;
    for (size_t shape = 0; shape < sizeof SHAPES / sizeof *SHAPES; shape++) {
        const int32_t heads = SHAPES[shape][0], group = SHAPES[shape][1], dim = SHAPES[shape][2];
        const int32_t value_dim = SHAPES[shape][3], slots = SHAPES[shape][4], kv = heads / group;
        const int32_t padded = tf_up4(dim), value_padded = up16(value_dim);
        const float k_inverse = 40.0f, v_inverse = 55.0f;
        block keys = take(tf_keys_i8(kv, dim, slots), 1), values = take(tf_values_i8(kv, value_dim, slots), 2);
        block corr = take(sizeof(int32_t) * (size_t)(kv * slots), 4);
        memset(keys.data, 0, keys.bytes), memset(values.data, 0, values.bytes), memset(corr.data, 0, corr.bytes);
        float *k = calloc((size_t)(slots * kv * dim), sizeof(float)),
              *v = calloc((size_t)(slots * kv * value_dim), sizeof(float));
        const int32_t filled = slots - 5;
        for (int32_t slot = 0; slot < filled; slot++) {
            block kr = take(sizeof(float) * (size_t)(kv * dim), 4),
                  vr = take(sizeof(float) * (size_t)(kv * value_dim), 4);
            /* Twice, so that an old row is replaced; the first time with NaN. */
            for (int turn = 0; turn < 2; turn++) {
                for (int32_t i = 0; i < kv * dim; i++) ((float *)kr.data)[i] = noise(&seed) * 2.0f;
                for (int32_t i = 0; i < kv * value_dim; i++) ((float *)vr.data)[i] = noise(&seed) * 1.5f;
                const int32_t bad = turn == 0 ? slot % 3 : 0; /* 1 in the key, 2 in the value */
                if (bad == 1) ((float *)kr.data)[slot % (kv * dim)] = NAN;
                if (bad == 2) ((float *)vr.data)[slot % (kv * value_dim)] = NAN;
                int32_t nan = 0;
                kernels->store_kv_i8((float *)kr.data, (float *)vr.data, (int8_t *)keys.data, (int32_t *)corr.data,
                                     (int8_t *)values.data, k_inverse, v_inverse, kv, dim, value_dim, slots, slot,
                                     &nan);
                CHECK(nan == (bad != 0));
            }
            memcpy(k + slot * kv * dim, kr.data, kr.bytes), memcpy(v + slot * kv * value_dim, vr.data, vr.bytes);
            give(&kr), give(&vr);
        }
        /* Every byte of the rings. */
        for (int32_t head = 0; head < kv; head++)
            for (int32_t slot = 0; slot < slots; slot++) {
                int32_t sum = 0;
                for (int32_t d = 0; d < padded; d++) {
                    const int8_t at =
                        ((int8_t *)
                             keys.data)[(head * slots + slot / 16 * 16) * padded + d / 4 * 64 + slot % 16 * 4 + d % 4];
                    CHECK(at == (d < dim ? (int)clamped(k[slot * kv * dim + head * dim + d], k_inverse) : 0));
                    sum += at;
                }
                CHECK(((int32_t *)corr.data)[head * slots + slot] == -128 * sum);
                for (int32_t d = 0; d < value_padded; d++) {
                    const int8_t at =
                        ((int8_t *)values.data)[(head * slots + slot / 4 * 4) * value_padded + d * 4 + slot % 4];
                    CHECK(
                        at ==
                        (d < value_dim ? (int)clamped(v[slot * kv * value_dim + head * value_dim + d], v_inverse) : 0));
                }
            }
        /* A query against float64 on the quantised numbers. */
        block q = take((size_t)(heads * padded), 3), bias = take(sizeof(float) * (size_t)(heads * slots), 4);
        block p = take(sizeof(float) * (size_t)(heads * slots), 4),
              y = take(sizeof(float) * (size_t)(heads * value_dim), 4);
        for (size_t i = 0; i < q.bytes; i++) q.data[i] = (unsigned char)(noise(&seed) * 64.0f + 128.0f);
        for (int32_t i = 0; i < heads * slots; i++)
            ((float *)bias.data)[i] = i % slots >= filled ? TF_ATTEND_EMPTY : -0.01f * (float)(i % 50);
        const float score = 0.0008f, value = 1.0f / v_inverse;
        kernels->attend_i8(q.data, (int8_t *)keys.data, (int32_t *)corr.data, (int8_t *)values.data, (float *)bias.data,
                           (float *)p.data, (float *)y.data, score, value, heads, group, dim, value_dim, slots);
        float *scalar = malloc(y.bytes), *scratch = malloc(p.bytes);
        tf_attend_i8_scalar(q.data, (int8_t *)keys.data, (int32_t *)corr.data, (int8_t *)values.data,
                            (float *)bias.data, scratch, scalar, score, value, heads, group, dim, value_dim, slots);
        for (int32_t head = 0; head < heads; head++) {
            double z[272], most = -INFINITY, total = 0;
            for (int32_t j = 0; j < slots; j++) {
                int64_t sum = 0;
                for (int32_t d = 0; d < dim; d++)
                    sum += (q.data[head * padded + d] - 128) *
                           (int64_t)(j < filled ? clamped(k[j * kv * dim + head / group * dim + d], k_inverse) : 0);
                z[j] = (double)score * (double)sum + (double)((float *)bias.data)[head * slots + j];
                most = fmax(most, z[j]);
            }
            for (int32_t j = 0; j < slots; j++) total += z[j] = exp2(z[j] - most);
            for (int32_t d = 0; d < value_dim; d++) {
                double want = 0, slack = 0;
                for (int32_t j = 0; j < filled; j++) {
                    const double one =
                        (double)value * clamped(v[j * kv * value_dim + head / group * value_dim + d], v_inverse);
                    want += z[j] * one / total;
                    slack +=
                        0.51 / 255 * fabs(one) / total; /* half a quantum of each weight, and its share of the sum */
                }
                const float got = ((float *)y.data)[head * value_dim + d];
                CHECK(fabs(got - want) <= slack + fabs(want) * (double)slots * 0.51 / 255 / total + 1e-6);
                CHECK(same(got, scalar[head * value_dim + d]));
            }
        }
        free(scalar), free(scratch), free(k), free(v);
        give(&q), give(&bias), give(&p), give(&y), give(&keys), give(&values), give(&corr);
    }
    /* Corners: all keys and values at the end of their range, one seen slot, and a ring of the largest size. */
    enum { SLOTS = 65536 };
    int8_t *keys = malloc((size_t)SLOTS * 4), *values = malloc((size_t)SLOTS * 16);
    int32_t *corr = malloc(sizeof(int32_t) * SLOTS);
    float *bias = malloc(sizeof(float) * SLOTS), *p = malloc(sizeof(float) * SLOTS), y[3];
    uint8_t q[4] = {255, 0, 255, 0};
    memset(keys, -128, (size_t)SLOTS * 4), memset(values, -128, (size_t)SLOTS * 16);
    for (int32_t j = 0; j < SLOTS; j++) corr[j] = 128 * 4 * 128, bias[j] = 0.0f;
    kernels->attend_i8(q, keys, corr, values, bias, p, y, 1.0f, 1.0f, 1, 1, 4, 3, SLOTS);
    for (int d = 0; d < 3; d++) CHECK(fabsf(y[d] + 128.0f) < 1e-4f);
    for (int32_t j = 0; j < SLOTS; j++) bias[j] = j == 777 ? 0.0f : -INFINITY;
    values[777 / 4 * 64 + 4 + 777 % 4] = 55;
    kernels->attend_i8(q, keys, corr, values, bias, p, y, 1.0f, 1.0f, 1, 1, 4, 3, SLOTS);
    CHECK(fabsf(y[0] + 128.0f) < 1e-4f && fabsf(y[1] - 55.0f) < 1e-4f);
    free(keys), free(values), free(corr), free(bias), free(p);
}

/* ---- a whole LSTM over 1,000 steps against float64 ---- */

enum { STEPS = 1000, FEATURES = 16, HIDDEN = 64 };

static void quantise_rows(const float *w, int32_t rows, int32_t k, int8_t *q, float *scale) {
    for (int32_t r = 0; r < rows; r++) {
        float most = 1e-9f;
        for (int32_t i = 0; i < k; i++) most = fmaxf(most, fabsf(w[r * k + i]));
        scale[r] = most / 127.0f;
        for (int32_t i = 0; i < k; i++) q[r * k + i] = (int8_t)lrintf(w[r * k + i] / scale[r]);
    }
}

static void test_long_run(const char *name, const tf_kernels *kernels, int a16, int quantised_reference) {
    enum { R4 = 4 * HIDDEN };
    static float w[R4 * FEATURES], r[R4 * HIDDEN], b[R4], ws[R4], rs[R4];
    static int8_t wq[R4 * FEATURES], rq[R4 * HIDDEN], wp[R4 * FEATURES], rp[R4 * HIDDEN];
    static float w_scale[R4], r_scale[R4], base[R4], pre[R4], c[HIDDEN], h[HIDDEN];
    static int32_t w_corr[R4], r_corr[R4];
    static uint8_t xq[2 * 64], hq[2 * 64];
    static double h64[HIDDEN], c64[HIDDEN], z64[R4], x64[FEATURES];
    unsigned seed = 23;
    for (int i = 0; i < R4 * FEATURES; i++) w[i] = noise(&seed) * 0.43f;
    for (int i = 0; i < R4 * HIDDEN; i++) r[i] = noise(&seed) * 0.108f;
    for (int i = 0; i < R4; i++) b[i] = noise(&seed) * 0.1f;
    quantise_rows(w, R4, FEATURES, wq, ws), quantise_rows(r, R4, HIDDEN, rq, rs);
    const float x_inverse = (a16 ? 32767.0f : 127.0f) / 4.0f, h_inverse = a16 ? 32767.0f : 127.0f;
    tf_pack_lstm_i8(wq, HIDDEN, FEATURES, wp), tf_pack_lstm_i8(rq, HIDDEN, HIDDEN, rp);
    tf_corr_i8(wp, R4, FEATURES, w_corr), tf_corr_i8(rp, R4, HIDDEN, r_corr);
    tf_scale_lstm_i8(ws, 1.0f / x_inverse, HIDDEN, w_scale), tf_scale_lstm_i8(rs, 1.0f / h_inverse, HIDDEN, r_scale);
    for (int i = 0; i < R4; i++) {
        const int gate = i / 16 % 4, unit = i / 64 * 16 + i % 16;
        base[i] = pre[i] = b[gate * HIDDEN + unit] * (gate == 2 ? 2.0f : -1.0f) * 1.4426950408889634f;
    }
    memset(c, 0, sizeof c), memset(h64, 0, sizeof h64), memset(c64, 0, sizeof c64);
    double squares = 0, power = 0, worst = 0, walk[FEATURES] = {0};
    for (int step = 0; step < STEPS; step++) {
        float x[FEATURES];
        int32_t nan = 0;
        for (int i = 0; i < FEATURES; i++) {
            walk[i] =
                fmax(-3.9, fmin(3.9, 0.98 * walk[i] + 0.17 * noise(&seed))); /* inside the calibrated range of +-4 */
            x[i] = (float)walk[i];
        }
        (a16 ? kernels->quantize_i8a16 : kernels->quantize_i8)(x, xq, x_inverse, FEATURES, &nan);
        (a16 ? kernels->lstm_finish_i8a16 : kernels->lstm_finish_i8)(wp, xq, w_scale, w_corr, pre, c, h, HIDDEN / 16,
                                                                     FEATURES);
        (a16 ? kernels->quantize_i8a16 : kernels->quantize_i8)(h, hq, h_inverse, HIDDEN, &nan);
        (a16 ? kernels->gemv_i8a16 : kernels->gemv_i8)(rp, hq, r_scale, r_corr, base, pre, R4, HIDDEN);
        CHECK(nan == 0);
        for (int i = 0; i < FEATURES; i++) x64[i] = x[i];
        for (int i = 0; i < R4; i++) {
            z64[i] = b[i];
            for (int j = 0; j < FEATURES; j++)
                z64[i] +=
                    x64[j] * (quantised_reference ? (double)wq[i * FEATURES + j] * ws[i] : (double)w[i * FEATURES + j]);
            for (int j = 0; j < HIDDEN; j++)
                z64[i] +=
                    h64[j] * (quantised_reference ? (double)rq[i * HIDDEN + j] * rs[i] : (double)r[i * HIDDEN + j]);
        }
        for (int u = 0; u < HIDDEN; u++) {
            c64[u] = sigma(z64[HIDDEN + u]) * c64[u] + sigma(z64[u]) * tanh(z64[2 * HIDDEN + u]);
            h64[u] = sigma(z64[3 * HIDDEN + u]) * tanh(c64[u]);
            squares += (h[u] - h64[u]) * (h[u] - h64[u]), power += h64[u] * h64[u];
            worst = fmax(worst, fabs(h[u] - h64[u]));
        }
    }
    const double rms = sqrt(squares / (STEPS * HIDDEN)), size = sqrt(power / (STEPS * HIDDEN));
    printf(
        "test_kernels_i8: %s LSTM 16-64, 1,000 steps, %s against float64 with %s weights: rms %.2e (%.3f %% of %.3f), "
        "worst %.2e\n",
        name, a16 ? "i8a16" : "i8", quantised_reference ? "the same int8" : "float", rms, 100 * rms / size, size,
        worst);
    CHECK(size > 0.05); /* the network moves */
    CHECK(rms < size * (a16 && quantised_reference ? 0.0004 : 0.03));
}

int main(void) {
    collect();
    test_packing();
    for (int i = 0; i < set_count; i++) {
        const int before = failures;
        const tf_kernels *kernels = &sets[i].kernels;
        test_gemv(kernels);
        test_quantize(kernels);
        test_dense(kernels);
        test_gates(kernels);
        test_lstm(kernels);
        test_attend(kernels);
        if (failures != before) printf("test_kernels_i8: %s has failures\n", sets[i].name);
    }
    const set *best = &sets[set_count - 1];
    for (int a16 = 0; a16 < 2; a16++)
        for (int quantised = 0; quantised < 2; quantised++) test_long_run(best->name, &best->kernels, a16, quantised);
    return done("test_kernels_i8");
}
