#include "lanes_f32_avx2.h"
#include "norm_f32.h"

#include <math.h>

/* A row is walked in steps of 64: eight sums of eight lanes; lanes beyond its end add 0. The macros keep the sums in
 * registers: term(sum, mask, address). */
#define TF_SUM_ROW(total, term)                                                                                        \
    do {                                                                                                               \
        __m256 sum0_f32x8 = _mm256_setzero_ps(), sum1_f32x8 = sum0_f32x8, sum2_f32x8 = sum0_f32x8,                     \
               sum3_f32x8 = sum0_f32x8, sum4_f32x8 = sum0_f32x8, sum5_f32x8 = sum0_f32x8, sum6_f32x8 = sum0_f32x8,     \
               sum7_f32x8 = sum0_f32x8;                                                                                \
        for (int32_t i = 0; i < n; i += 64) {                                                                          \
            sum0_f32x8 = term(sum0_f32x8, tf_tail_avx2(n - i), x + i);                                                 \
            if (i + 8 < n) sum1_f32x8 = term(sum1_f32x8, tf_tail_avx2(n - i - 8), x + i + 8);                          \
            if (i + 16 < n) sum2_f32x8 = term(sum2_f32x8, tf_tail_avx2(n - i - 16), x + i + 16);                       \
            if (i + 24 < n) sum3_f32x8 = term(sum3_f32x8, tf_tail_avx2(n - i - 24), x + i + 24);                       \
            if (i + 32 < n) sum4_f32x8 = term(sum4_f32x8, tf_tail_avx2(n - i - 32), x + i + 32);                       \
            if (i + 40 < n) sum5_f32x8 = term(sum5_f32x8, tf_tail_avx2(n - i - 40), x + i + 40);                       \
            if (i + 48 < n) sum6_f32x8 = term(sum6_f32x8, tf_tail_avx2(n - i - 48), x + i + 48);                       \
            if (i + 56 < n) sum7_f32x8 = term(sum7_f32x8, tf_tail_avx2(n - i - 56), x + i + 56);                       \
        }                                                                                                              \
        const __m256 even_f32x8 =                                                                                      \
            _mm256_add_ps(_mm256_add_ps(sum0_f32x8, sum4_f32x8), _mm256_add_ps(sum2_f32x8, sum6_f32x8));               \
        const __m256 odd_f32x8 =                                                                                       \
            _mm256_add_ps(_mm256_add_ps(sum1_f32x8, sum5_f32x8), _mm256_add_ps(sum3_f32x8, sum7_f32x8));               \
        (total) = tf_fold_f32x8(even_f32x8, odd_f32x8);                                                                \
    } while (0)

/* y = gamma unit + beta over the row, unit(mask, x) being the normalised element. */
#define TF_WRITE_ROW(unit)                                                                                             \
    for (int32_t i = 0; i < n; i += 8) {                                                                               \
        const __m256i mask_i32x8 = tf_tail_avx2(n - i);                                                                \
        const __m256 beta_f32x8 = beta ? _mm256_maskload_ps(beta + i, mask_i32x8) : _mm256_setzero_ps();               \
        const __m256 y_f32x8 =                                                                                         \
            _mm256_fmadd_ps(_mm256_maskload_ps(gamma + i, mask_i32x8), unit(mask_i32x8, x + i), beta_f32x8);           \
        if (i + 8 <= n)                                                                                                \
            _mm256_storeu_ps(y + i, y_f32x8);                                                                          \
        else                                                                                                           \
            _mm256_maskstore_ps(y + i, mask_i32x8, y_f32x8);                                                           \
    }

TF_INLINE __m256 below(__m256 a_f32x8, __m256 b_f32x8, __m256i mask_i32x8) {
    return _mm256_and_ps(_mm256_sub_ps(a_f32x8, b_f32x8), _mm256_castsi256_ps(mask_i32x8));
}

void tf_layernorm_f32_avx2(const float *x, const float *gamma, const float *beta, float *y, float eps, int32_t n) {
    const float share = 1.0f / (float)n;
    const __m256 shift_f32x8 = _mm256_set1_ps(x[0]);
    float sum;
#define SHIFTED(mask, at) below(_mm256_maskload_ps(at, mask), shift_f32x8, mask)
#define ADD(sum_f32x8, mask, at) _mm256_add_ps(sum_f32x8, SHIFTED(mask, at))
    TF_SUM_ROW(sum, ADD);
    const __m256 mean_f32x8 = _mm256_set1_ps(sum * share);
#define CENTRED(mask, at) below(SHIFTED(mask, at), mean_f32x8, mask)
#define SQUARE(sum_f32x8, mask, at) _mm256_fmadd_ps(CENTRED(mask, at), CENTRED(mask, at), sum_f32x8)
    TF_SUM_ROW(sum, SQUARE);
    const __m256 inverse_f32x8 = _mm256_set1_ps(1.0f / sqrtf(sum * share + eps));
#define UNIT(mask, at) _mm256_mul_ps(CENTRED(mask, at), inverse_f32x8)
    TF_WRITE_ROW(UNIT)
}

void tf_rmsnorm_f32_avx2(const float *x, const float *gamma, const float *beta, float *y, float eps, int32_t n) {
    const float share = 1.0f / (float)n;
    float sum;
#define PLAIN(mask, at) _mm256_maskload_ps(at, mask)
#define PLAIN_SQUARE(sum_f32x8, mask, at) _mm256_fmadd_ps(PLAIN(mask, at), PLAIN(mask, at), sum_f32x8)
    TF_SUM_ROW(sum, PLAIN_SQUARE);
    const __m256 inverse_f32x8 = _mm256_set1_ps(1.0f / sqrtf(sum * share + eps));
#define PLAIN_UNIT(mask, at) _mm256_mul_ps(PLAIN(mask, at), inverse_f32x8)
    TF_WRITE_ROW(PLAIN_UNIT)
}
