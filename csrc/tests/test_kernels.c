/* The float rows of kernels.def on every instruction set, in buffers of exact size, so that AddressSanitizer sees a
 * read or write beyond; dispatch that falls to the next lower kernel. Values are compared with float64; the wide
 * differential tests are in tests/inference/test_kernels*.py. */
#include "check.h"

#include "nn/attend_f32.h"
#include "nn/exp2_f32.h"
#include "nn/halves.h"
#include "nn/kernels.h"
#include "nn/pack.h"

#include <math.h>

enum { MOST = 4096 };
static float a[MOST], b[MOST], c[MOST], d[MOST], e[MOST];
static const int SIZES[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97};

static void fill(float *x, int n, unsigned *seed) {
    for (int i = 0; i < n; i++) x[i] = noise(seed);
}

static void test_table(void) {
    CHECK(tf_kernel_count() == TF_KERNEL_COUNT);
    CHECK(tf_kernel_describe(-1) == NULL && tf_kernel_describe(TF_KERNEL_COUNT) == NULL);
    for (int32_t i = 0; i < tf_kernel_count(); i++) {
        const tf_kernel_info *info = tf_kernel_describe(i);
        CHECK(info->isas & 1u);
        CHECK(info->op[0] && info->dtype[0] && info->signature[0] == '(' && info->tolerance[0] && info->reference[0]);
        CHECK(tf_kernel_get(i, TF_ISA_SCALAR) != NULL);
        static const int below[TF_ISA_COUNT] = {[TF_ISA_AVXVNNI] = TF_ISA_AVX2,
                                                [TF_ISA_AVX512] = TF_ISA_AVX2,
                                                [TF_ISA_AVX512VNNI] = TF_ISA_AVX512,
                                                [TF_ISA_AVX512BF16] = TF_ISA_AVX512VNNI,
                                                [TF_ISA_AVX512FP16] = TF_ISA_AVX512BF16};
        for (int isa = 1; isa < TF_ISA_COUNT; isa++) {
            if (!tf_isa_available((tf_isa)isa)) {
                CHECK(tf_kernel_get(i, (tf_isa)isa) == NULL);
                continue;
            }
            const tf_kernel_function own = tf_kernel_get(i, (tf_isa)isa);
            const tf_kernel_function lower = tf_kernel_get(i, (tf_isa)below[isa]);
            CHECK(own != NULL);
            CHECK((own != lower) == ((info->isas >> isa & 1u) != 0)); /* its own, or the next lower one's */
        }
    }
}

static void test_gemv(const tf_kernels *kernels) {
    unsigned seed = 1;
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
        for (int k = 1; k < 20; k++) {
            const int rows = SIZES[s], padded = (rows + 15) / 16 * 16;
            float *w = malloc(sizeof(float) * (size_t)(rows * k));
            float *packed = malloc(sizeof(float) * tf_packed_floats(rows, k)); /* exact, so ASan sees a read beyond */
            float *base = malloc(sizeof(float) * (size_t)padded), *z = malloc(sizeof(float) * (size_t)padded);
            float *x = malloc(sizeof(float) * (size_t)k);
            fill(w, rows * k, &seed);
            fill(base, padded, &seed);
            fill(x, k, &seed);
            tf_pack_f32(w, rows, k, k, packed);
            kernels->gemv_f32(packed, x, base, z, rows, k);
            for (int r = 0; r < rows; r++) {
                double want = base[r], scale = fabs(base[r]);
                for (int i = 0; i < k; i++) {
                    want += (double)w[r * k + i] * x[i];
                    scale += fabs((double)w[r * k + i] * x[i]);
                }
                CHECK(fabs(z[r] - want) <= (k + 4) * scale / 16777216.0);
            }
            free(w), free(packed), free(base), free(z), free(x);
        }
}

/* Exactly n floats of noise. */
static float *row(int n, unsigned *seed) {
    float *x = malloc(sizeof(float) * (size_t)n);
    fill(x, n, seed);
    return x;
}

static void test_halves(const tf_kernels *kernels) {
    unsigned seed = 7;
    for (uint32_t bits = 0; bits < 0x10000; bits++) { /* every half is a float, and that float rounds back to it */
        const float f16 = tf_f32_from_f16((uint16_t)bits), bf16 = tf_f32_from_bf16((uint16_t)bits);
        CHECK(isnan(f16) ? (bits & 0x7FFF) > 0x7C00 : tf_f16_from_f32(f16) == bits);
        CHECK(isnan(bf16) ? (bits & 0x7FFF) > 0x7F80 : tf_bf16_from_f32(bf16) == bits);
    }
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
        for (int k = 1; k < 20; k++) {
            const int rows = SIZES[s], padded = (rows + 15) / 16 * 16;
            const size_t count = tf_packed_floats(rows, k);
            float *w = row(rows * k, &seed), *packed = malloc(sizeof(float) * count), *x = row(k, &seed);
            float *base = row(padded, &seed), *one = row(padded, &seed), *two = row(padded, &seed);
            uint16_t *half = malloc(sizeof(uint16_t) * count);
            for (int type = 0; type < 2; type++) {
                tf_pack_f32(w, rows, k, k, packed);
                CHECK(type ? tf_pack_bf16(packed, count, half) : tf_pack_f16(packed, count, half));
                for (size_t i = 0; i < count; i++)
                    packed[i] = type ? tf_f32_from_bf16(half[i]) : tf_f32_from_f16(half[i]);
                kernels->gemv_f32(packed, x, base, one, rows, k);
                (type ? kernels->gemv_bf16 : kernels->gemv_f16)(half, x, base, two, rows, k);
                for (int r = 0; r < padded; r++) CHECK(one[r] == two[r]);
            }
            free(w), free(packed), free(x), free(base), free(one), free(two), free(half);
        }
    for (int blocks = 1; blocks <= 5; blocks++)
        for (int k = 1; k <= 9; k++) {
            const size_t count = tf_packed_floats(64 * blocks, k);
            float *wide = row((int)count, &seed), *x = row(k, &seed), *pre = row(64 * blocks, &seed);
            float *c[2] = {row(16 * blocks, &seed), row(16 * blocks, &seed)};
            float *h[2] = {row(16 * blocks, &seed), row(16 * blocks, &seed)};
            uint16_t *half = malloc(sizeof(uint16_t) * count);
            float *z = malloc(sizeof(float) * 64 * (size_t)blocks);
            for (int type = 0; type < 2; type++) {
                CHECK(type ? tf_pack_bf16(wide, count, half) : tf_pack_f16(wide, count, half));
                for (size_t i = 0; i < count; i++)
                    wide[i] = type ? tf_f32_from_bf16(half[i]) : tf_f32_from_f16(half[i]);
                memcpy(c[1], c[0], sizeof(float) * 16 * (size_t)blocks);
                /* 16-bit sums lack the factor log2(e) until the gates (lstm_f32.h). */
                kernels->gemv_f32(wide, x, pre, z, 64 * blocks, k);
                kernels->scale_f32(z, z, (float)TF_LOG2E, 64 * blocks);
                kernels->lstm_gates_f32(z, c[0], h[0], blocks);
                (type ? kernels->lstm_finish_bf16 : kernels->lstm_finish_f16)(half, x, pre, c[1], h[1], blocks, k);
                for (int u = 0; u < 16 * blocks; u++) CHECK(c[0][u] == c[1][u] && h[0][u] == h[1][u]);
            }
            free(wide), free(x), free(pre), free(c[0]), free(c[1]), free(h[0]), free(h[1]), free(half), free(z);
        }
}

static void test_elementwise(const tf_kernels *kernels) {
    enum { UNARY = 7 };
    unsigned seed = 2;
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
        for (int unary = 0; unary < UNARY; unary++) {
            const int n = SIZES[s];
            float *x = row(n, &seed), *y = row(n, &seed);
            double sum = 0;
            for (int i = 0; i < n; i++) sum += exp(x[i]);
            void (*const run[UNARY])(const float *, float *, int32_t) = {
                kernels->relu_f32, kernels->tanh_f32,      kernels->sigmoid_f32, kernels->softmax_f32,
                kernels->gelu_f32, kernels->gelu_tanh_f32, kernels->silu_f32};
            run[unary](x, y, n);
            for (int i = 0; i < n; i++) {
                const double v = x[i], u = sqrt(8 / acos(-1.0)) * (v + 0.044715 * v * v * v);
                const double want[UNARY] = {v > 0 ? v : 0,          tanh(v),          1 / (1 + exp(-v)), exp(v) / sum,
                                            v * erfc(-v / sqrt(2.0)) / 2, v / (1 + exp(-u)), v / (1 + exp(-v))};
                CHECK(fabs(y[i] - want[unary]) <= 2e-6 * fabs(want[unary]));
            }
            x[n - 1] = NAN;
            run[unary](x, y, n);
            CHECK(isnan(y[n - 1]));
            free(x), free(y);
        }
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++) {
        const int n = SIZES[s];
        float *x = row(n, &seed), *w = row(n, &seed), *base = row(n, &seed), *y = row(n, &seed);
        kernels->add_f32(x, w, y, n);
        for (int i = 0; i < n; i++) CHECK(y[i] == x[i] + w[i]);
        kernels->mul_f32(x, w, y, n);
        for (int i = 0; i < n; i++) CHECK(y[i] == x[i] * w[i]);
        kernels->max_f32(x, w, y, n);
        for (int i = 0; i < n; i++) CHECK(y[i] == (x[i] > w[i] ? x[i] : w[i]));
        kernels->scale_f32(x, y, 0.3f, n);
        for (int i = 0; i < n; i++) CHECK(y[i] == 0.3f * x[i]);
        kernels->leaky_relu_f32(x, y, 0.1f, n);
        for (int i = 0; i < n; i++) CHECK(y[i] == (x[i] > 0 ? x[i] : 0.1f * x[i]));
        kernels->tap_f32(w, x, base, y, n);
        for (int i = 0; i < n; i++) CHECK(fabs(y[i] - ((double)w[i] * x[i] + base[i])) <= 1e-6);
        for (int root = 0; root < 2; root++) {
            double mean = 0, square = 0;
            for (int i = 0; i < n && !root; i++) mean += (double)x[i] / n;
            for (int i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean) / n;
            (root ? kernels->rmsnorm_f32 : kernels->layernorm_f32)(x, w, root ? NULL : base, y, 1e-3f, n);
            for (int i = 0; i < n; i++)
                CHECK(fabs(y[i] - ((x[i] - mean) / sqrt(square + 1e-3) * w[i] + (root ? 0 : base[i]))) <= 1e-5);
        }
        free(x), free(w), free(base), free(y);
    }
    for (int dim = 2; dim <= 70; dim += 2)
        for (int interleaved = 0; interleaved < 2; interleaved++) {
            float *x = row(3 * dim, &seed), *turn = row(dim, &seed), *y = row(3 * dim, &seed);
            kernels->rope_f32(x, turn, y, 3, dim, interleaved);
            for (int h = 0; h < 3; h++)
                for (int i = 0; i < dim / 2; i++) {
                    const int a = h * dim + (interleaved ? 2 * i : i), b = a + (interleaved ? 1 : dim / 2);
                    const double c = turn[2 * i], s = turn[2 * i + 1];
                    CHECK(fabs(y[a] - (x[a] * c - x[b] * s)) <= 4e-6 && fabs(y[b] - (x[b] * c + x[a] * s)) <= 4e-6);
                }
            free(x), free(turn), free(y);
        }
}

static void test_attend(const tf_kernels *kernels) {
    static const int SHAPES[][5] = {{1, 1, 1, 1, 16},    {4, 1, 16, 16, 128}, {4, 2, 16, 16, 48}, {3, 1, 5, 7, 80},
                                    {2, 1, 24, 40, 144}, {5, 1, 8, 16, 64},   {2, 2, 20, 20, 32}, {3, 1, 16, 32, 272}};
    unsigned seed = 9;
    for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++) {
        const int heads = SHAPES[s][0], group = SHAPES[s][1], dim = SHAPES[s][2], width = SHAPES[s][3];
        const int slots = SHAPES[s][4], kv = heads / group, stride = (kv * width + 15) / 16 * 16;
        float *q = row(heads * dim, &seed), *k = row(kv * slots * dim, &seed), *v = row(slots * stride, &seed);
        float *bias = row(heads * slots, &seed), *p = row(heads * slots, &seed), *y = row(heads * width, &seed);
        for (int i = 0; i < heads * slots; i++)
            if (i % slots % 5 == 3) bias[i] = TF_ATTEND_EMPTY;
        kernels->attend_f32(q, k, v, bias, p, y, heads, group, dim, width, slots);
        for (int h = 0; h < heads; h++) {
            double z[512], highest = -1e300, sum = 0;
            for (int t = 0; t < slots; t++) {
                z[t] = bias[h * slots + t];
                for (int d = 0; d < dim; d++)
                    z[t] += (double)q[h * dim + d] * k[((h / group * slots + t / 16 * 16) * dim) + d * 16 + t % 16];
                highest = z[t] > highest ? z[t] : highest;
            }
            for (int t = 0; t < slots; t++) sum += exp2(z[t] - highest);
            for (int j = 0; j < width; j++) {
                double want = 0;
                for (int t = 0; t < slots; t++)
                    want += exp2(z[t] - highest) / sum * v[t * stride + h / group * width + j];
                CHECK(fabs(y[h * width + j] - want) <= 1e-5);
            }
        }
        free(q), free(k), free(v), free(bias), free(p), free(y);
    }
}

static double gate(double z) { return 1 / (1 + exp(-z)); }

static void test_gru(const tf_kernels *kernels) {
    const double log2e = 1.4426950408889634;
    unsigned seed = 11;
    for (int blocks = 1; blocks <= 5; blocks++) {
        const int n = 16 * blocks;
        float *zx = row(3 * n, &seed), *zh = row(3 * n, &seed), *before = row(n, &seed), *h = row(n, &seed);
        for (int op = 0; op < 3; op++) {
            memcpy(h, before, sizeof(float) * (size_t)n);
            if (op == 0) kernels->gru_gates_f32(zx, zh, h, blocks);
            if (op == 1) kernels->gru_late_f32(zx, zh, h, blocks);
            if (op == 2) kernels->gru_reset_f32(zx, zh, before, h, blocks);
            for (int i = 0; i < n; i++) {
                const double r = gate(-(zx[i] + zh[i]) / log2e), u = gate(-(zx[n + i] + zh[n + i]) / log2e);
                const double t = tanh((zx[2 * n + i] + (op == 0 ? r : 1) * zh[2 * n + i]) / (2 * log2e));
                CHECK(fabs(h[i] - (op == 2 ? r * before[i] : (1 - u) * t + u * before[i])) <= 4e-6);
            }
        }
        free(zx), free(zh), free(before), free(h);
    }
    /* Packing: gate g of unit u is row (g * blocks * 16 + u), scaled. */
    for (int hidden = 1; hidden <= 40; hidden += 13) {
        const int blocks = (hidden + 15) / 16;
        float *w = row(3 * hidden, &seed), *plain = row(48 * blocks, &seed);
        tf_pack_gru_f32(w, hidden, 1, plain);
        for (int i = 0; i < 48 * blocks; i++) {
            const int g = i / (16 * blocks), u = i % (16 * blocks);
            CHECK(plain[i] == (u < hidden ? (float)((g == 2 ? 2 * log2e : -log2e) * (double)w[g * hidden + u]) : 0));
        }
        free(w), free(plain);
    }
}

static void test_lstm(const tf_kernels *kernels) {
    unsigned seed = 3;
    for (int blocks = 1; blocks <= 5; blocks++)
        for (int k = 1; k <= 9; k++) {
            const int hidden = 16 * blocks - 3;
            fill(a, 4 * hidden * k, &seed);
            fill(b, k, &seed);
            float *w = malloc(sizeof(float) * tf_packed_floats(64 * blocks, k));
            float *pre = calloc((size_t)(64 * blocks), sizeof(float));
            float *cell = calloc((size_t)(16 * blocks), sizeof(float));
            float *h = calloc((size_t)(16 * blocks), sizeof(float));
            tf_pack_lstm_f32(a, hidden, k, w);
            kernels->lstm_finish_f32(w, b, pre, cell, h, blocks, k);
            for (int u = 0; u < hidden; u++) {
                double z[4];
                for (int g = 0; g < 4; g++) {
                    z[g] = 0;
                    for (int i = 0; i < k; i++) z[g] += (double)a[(g * hidden + u) * k + i] * b[i];
                }
                const double next = tanh(z[2]) / (1 + exp(-z[0]));
                CHECK(fabs(cell[u] - next) < 4e-6);
                CHECK(fabs(h[u] - tanh(next) / (1 + exp(-z[3]))) < 4e-6);
            }
            for (int u = hidden; u < 16 * blocks; u++) CHECK(cell[u] == 0 && h[u] == 0);
            /* The same in two parts. */
            kernels->gemv_f32(w, b, pre, c, 64 * blocks, k);
            for (int u = 0; u < 16 * blocks; u++) d[u] = 0;
            kernels->lstm_gates_f32(c, d, e, blocks);
            for (int u = 0; u < 16 * blocks; u++) CHECK(d[u] == cell[u] && e[u] == h[u]);
            free(w), free(pre), free(cell), free(h);
        }
}

static void test_isa(void) {
    char text[256], tiny[8];
    const size_t length = tf_cpu_features(text, sizeof text);
    CHECK(length == strlen(text));
    CHECK(tf_cpu_features(tiny, sizeof tiny) < sizeof tiny);
    CHECK(tf_cpu_features(tiny, 0) == 0);
    for (int i = 0; i < TF_ISA_COUNT; i++) {
        const tf_status status = tf_isa_select(tf_isa_name((tf_isa)i));
        CHECK(status == (tf_isa_available((tf_isa)i) ? TF_OK : TF_ERR_ISA));
        if (status == TF_OK) CHECK(tf_isa_active() == (tf_isa)i);
    }
    const tf_isa before = tf_isa_active();
    CHECK(tf_isa_select("mmx") == TF_ERR_ISA && tf_isa_active() == before);
    CHECK(!tf_isa_available((tf_isa)-1) && !tf_isa_available(TF_ISA_COUNT));
    CHECK(strcmp(tf_isa_name((tf_isa)99), "unknown") == 0);
    for (int i = 0; i <= TF_ERR_NONFINITE; i++)
        for (int j = 0; j < i; j++) CHECK(strcmp(tf_status_text((tf_status)i), tf_status_text((tf_status)j)) != 0);
    const uint64_t t0 = tf_timer_ticks();
    CHECK(tf_timer_ns_per_tick() > 0 && tf_timer_ticks() > t0);
}

int main(void) {
    test_table();
    test_isa();
    for (int isa = 0; isa < TF_ISA_COUNT; isa++) {
        if (!tf_isa_available((tf_isa)isa)) {
            printf("test_kernels: %s is not available here\n", tf_isa_name((tf_isa)isa));
            continue;
        }
        const tf_kernels *kernels = tf_kernels_of((tf_isa)isa);
        test_gemv(kernels);
        test_elementwise(kernels);
        test_lstm(kernels);
        test_halves(kernels);
        test_attend(kernels);
        test_gru(kernels);
    }
    return done("test_kernels");
}
