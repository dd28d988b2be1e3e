/* Every row of kernels.def on every instruction set: finite for plain input, no write outside the output, dispatch that
 * falls to the next lower kernel. Values are compared with float64 here for gemv and the activations; the wide differential
 * tests are in tests/inference/test_kernels.py. */
#include "check.h"

#include "nn/kernels.h"

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
        tf_kernel_function lower = tf_kernel_get(i, TF_ISA_SCALAR);
        for (int isa = 1; isa < TF_ISA_COUNT; isa++) {
            if (!tf_isa_available((tf_isa)isa)) {
                CHECK(tf_kernel_get(i, (tf_isa)isa) == NULL);
                continue;
            }
            tf_kernel_function own = tf_kernel_get(i, (tf_isa)isa);
            CHECK(own != NULL);
            CHECK((own != lower) == ((info->isas >> isa & 1u) != 0)); /* its own, or the next lower one's */
            lower = own;
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

static void test_elementwise(const tf_kernels *kernels) {
    unsigned seed = 2;
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
        for (int unary = 0; unary < 4; unary++) {
            const int n = SIZES[s];
            float *x = malloc(sizeof(float) * (size_t)n), *y = malloc(sizeof(float) * (size_t)n);
            fill(x, n, &seed);
            double sum = 0;
            for (int i = 0; i < n; i++) sum += exp(x[i]);
            void (*const run[4])(const float *, float *, int32_t) = {kernels->relu_f32, kernels->tanh_f32,
                                                                     kernels->sigmoid_f32, kernels->softmax_f32};
            run[unary](x, y, n);
            for (int i = 0; i < n; i++) {
                const double want[4] = {x[i] > 0 ? x[i] : 0, tanh(x[i]), 1 / (1 + exp(-x[i])), exp(x[i]) / sum};
                CHECK(fabs(y[i] - want[unary]) <= 2e-6 * fabs(want[unary]));
            }
            x[n - 1] = NAN;
            run[unary](x, y, n);
            CHECK(isnan(y[n - 1]));
            free(x), free(y);
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
            float *cell = calloc((size_t)(16 * blocks), sizeof(float)), *h = calloc((size_t)(16 * blocks), sizeof(float));
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
    }
    return done("test_kernels");
}
