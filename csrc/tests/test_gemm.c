/* gemm gives each session the bits of gemv: every format and instruction set, all panel shapes, odd counts, rows off
 * alignment, z apart from base and in its place, one base for all. Buffers are exact, so that AddressSanitizer sees a
 * step beyond; guard words tell without it. */
#include "check.h"

#include "nn/gemv_i8.h"

enum { MOST_SESSIONS = 17, GUARD = 16 };
static const int ROWS[] = {1, 5, 16, 17, 32, 48, 64, 80, 100, 112, 128, 129, 144, 160, 192, 240, 256, 260, 304};
static const int COLUMNS[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 31, 33, 64, 100};
static const int COUNTS[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17};
enum {
    ROWS_COUNT = sizeof ROWS / sizeof *ROWS,
    COLUMNS_COUNT = sizeof COLUMNS / sizeof *COLUMNS,
    COUNTS_COUNT = sizeof COUNTS / sizeof *COUNTS
};

/* The rows of n sessions: x [k], base, z and want [padded], each between guards and one float off alignment. */
typedef struct rows {
    const float *x[MOST_SESSIONS], *base[MOST_SESSIONS];
    float *z[MOST_SESSIONS], *want[MOST_SESSIONS];
    float *memory;
} rows;

static rows make(int n, int padded, int k, unsigned *seed) {
    rows r;
    const size_t each = (size_t)(k + 3 * padded + 4 * GUARD + 1);
    r.memory = malloc(each * (size_t)n * sizeof(float));
    for (size_t i = 0; i < each * (size_t)n; i++) r.memory[i] = noise(seed);
    float *next = r.memory + 1;
    for (int s = 0; s < n; s++, next += each) {
        r.x[s] = next;
        r.base[s] = next + k + GUARD;
        r.z[s] = next + k + padded + 2 * GUARD;
        r.want[s] = next + k + 2 * padded + 3 * GUARD;
    }
    return r;
}

static int guarded(const rows *r, const float *before, int n, int padded) {
    for (int s = 0; s < n; s++) {
        const size_t low = (size_t)(r->z[s] - GUARD - r->memory), high = (size_t)(r->z[s] + padded - r->memory);
        if (memcmp(r->memory + low, before + low, GUARD * sizeof(float)) != 0 ||
            memcmp(r->memory + high, before + high, (GUARD - 1) * sizeof(float)) != 0)
            return 0;
    }
    return 1;
}

#define TF_TEST_FLOAT(dtype, type, convert)                                                                            \
    static void test_##dtype(const tf_kernels *kernels) {                                                              \
        unsigned seed = 7;                                                                                             \
        for (int a = 0; a < ROWS_COUNT; a++)                                                                           \
            for (int b = 0; b < COLUMNS_COUNT; b++) {                                                                  \
                const int height = ROWS[a], k = COLUMNS[b], padded = (height + 15) / 16 * 16;                          \
                const int n = COUNTS[(a + 3 * b) % COUNTS_COUNT];                                                      \
                const size_t size = tf_packed_floats(height, k);                                                       \
                type *w = malloc(size * sizeof *w);                                                                    \
                for (size_t i = 0; i < size; i++) w[i] = convert(noise(&seed));                                        \
                rows r = make(n, padded, k, &seed);                                                                    \
                const size_t bytes = (size_t)(k + 3 * padded + 4 * GUARD + 1) * (size_t)n * sizeof(float);             \
                float *before = malloc(bytes);                                                                         \
                memcpy(before, r.memory, bytes);                                                                       \
                for (int s = 0; s < n; s++) kernels->gemv_##dtype(w, r.x[s], r.base[s], r.want[s], height, k);         \
                kernels->gemm_##dtype(w, r.x, r.base, r.z, n, height, k);                                              \
                for (int s = 0; s < n; s++) CHECK(memcmp(r.z[s], r.want[s], (size_t)padded * sizeof(float)) == 0);     \
                CHECK(guarded(&r, before, n, padded));                                                                 \
                for (int s = 0; s < n; s++) memcpy(r.z[s], r.base[s], (size_t)padded * sizeof(float));                 \
                kernels->gemm_##dtype(w, r.x, (const float *const *)r.z, r.z, n, height, k);                           \
                for (int s = 0; s < n; s++) CHECK(memcmp(r.z[s], r.want[s], (size_t)padded * sizeof(float)) == 0);     \
                for (int s = 0; s < n; s++) r.base[s] = r.base[0];                                                     \
                for (int s = 0; s < n; s++) kernels->gemv_##dtype(w, r.x[s], r.base[0], r.want[s], height, k);         \
                kernels->gemm_##dtype(w, r.x, r.base, r.z, n, height, k);                                              \
                for (int s = 0; s < n; s++) CHECK(memcmp(r.z[s], r.want[s], (size_t)padded * sizeof(float)) == 0);     \
                kernels->gemm_##dtype(w, r.x, r.base, r.z, 0, height, k);                                              \
                free(w), free(r.memory), free(before);                                                                 \
            }                                                                                                          \
    }

TF_TEST_FLOAT(f32, float, )
TF_TEST_FLOAT(f16, uint16_t, tf_f16_from_f32)
TF_TEST_FLOAT(bf16, uint16_t, tf_bf16_from_f32)

/* Bytes at their limits too: rows of 0 and of 255 against weights of +-127. */
#define TF_TEST_INTEGER(dtype, planes)                                                                                 \
    static void test_##dtype(const tf_kernels *kernels) {                                                              \
        unsigned seed = 9;                                                                                             \
        for (int a = 0; a < ROWS_COUNT; a++)                                                                           \
            for (int b = 0; b < COLUMNS_COUNT; b++) {                                                                  \
                const int height = ROWS[a], k = COLUMNS[b], padded = (height + 15) / 16 * 16;                          \
                const int n = COUNTS[(a + 5 * b) % COUNTS_COUNT];                                                      \
                const size_t width = planes == 2 ? tf_plane_i8a16(k) + (size_t)tf_up4(k) : (size_t)tf_up4(k);          \
                const size_t size = tf_packed_i8(height, k);                                                           \
                int8_t *plain = malloc((size_t)(height * k)), *w = malloc(size);                                       \
                for (int i = 0; i < height * k; i++)                                                                   \
                    plain[i] = (int8_t)(b % 3 == 0 ? 127 : (int)(63.0f * noise(&seed)));                               \
                tf_pack_i8(plain, height, k, k, w);                                                                    \
                float *scale = malloc((size_t)padded * sizeof *scale);                                                 \
                int32_t *corr = malloc((size_t)padded * sizeof *corr);                                                 \
                for (int i = 0; i < padded; i++) scale[i] = 0.01f * noise(&seed);                                      \
                tf_corr_i8(w, height, k, corr);                                                                        \
                const uint8_t *q[MOST_SESSIONS];                                                                       \
                uint8_t *bytes = malloc(width * (size_t)n);                                                            \
                for (size_t i = 0; i < width * (size_t)n; i++)                                                         \
                    bytes[i] = (uint8_t)(b % 4 == 0 ? 255 * (i / width % 2)                                            \
                                                    : (unsigned)(60.0f * (noise(&seed) + 2)));                         \
                for (int s = 0; s < n; s++) q[s] = bytes + width * (size_t)s;                                          \
                rows r = make(n, padded, 1, &seed);                                                                    \
                const size_t total = (size_t)(1 + 3 * padded + 4 * GUARD + 1) * (size_t)n * sizeof(float);             \
                float *before = malloc(total);                                                                         \
                memcpy(before, r.memory, total);                                                                       \
                for (int s = 0; s < n; s++)                                                                            \
                    kernels->gemv_##dtype(w, q[s], scale, corr, r.base[s], r.want[s], height, k);                      \
                kernels->gemm_##dtype(w, q, scale, corr, r.base, r.z, n, height, k);                                   \
                for (int s = 0; s < n; s++) CHECK(memcmp(r.z[s], r.want[s], (size_t)padded * sizeof(float)) == 0);     \
                CHECK(guarded(&r, before, n, padded));                                                                 \
                for (int s = 0; s < n; s++) memcpy(r.z[s], r.base[s], (size_t)padded * sizeof(float));                 \
                kernels->gemm_##dtype(w, q, scale, corr, (const float *const *)r.z, r.z, n, height, k);                \
                for (int s = 0; s < n; s++) CHECK(memcmp(r.z[s], r.want[s], (size_t)padded * sizeof(float)) == 0);     \
                kernels->gemm_##dtype(w, q, scale, corr, r.base, r.z, 0, height, k);                                   \
                free(plain), free(w), free(scale), free(corr), free(bytes), free(r.memory), free(before);              \
            }                                                                                                          \
    }

TF_TEST_INTEGER(i8, 1)
TF_TEST_INTEGER(i8a16, 2)

int main(void) {
    for (int isa = 0; isa < TF_ISA_COUNT; isa++) {
        if (!tf_isa_available((tf_isa)isa)) {
            printf("test_gemm: %s is not available here\n", tf_isa_name((tf_isa)isa));
            continue;
        }
        const tf_kernels *kernels = tf_kernels_of((tf_isa)isa);
        test_f32(kernels);
        test_f16(kernels);
        test_bf16(kernels);
        test_i8(kernels);
        test_i8a16(kernels);
    }
    return done("test_gemm");
}
