#include "lanes_f32_avx512.h"
#include "norm_f32.h"

#include <math.h>

/* Sum in 64 lanes of `term` over the row; lanes beyond its end add 0. The macro keeps the four sums in registers. */
#define TF_SUM_ROW(total, term)                                                                                        \
    do {                                                                                                               \
        __m512 sum0_f32x16 = _mm512_setzero_ps(), sum1_f32x16 = sum0_f32x16, sum2_f32x16 = sum0_f32x16,                \
               sum3_f32x16 = sum0_f32x16;                                                                              \
        int32_t i = 0;                                                                                                 \
        for (; i + 64 <= n; i += 64) {                                                                                 \
            sum0_f32x16 = term(sum0_f32x16, (__mmask16)0xFFFF, x + i);                                                 \
            sum1_f32x16 = term(sum1_f32x16, (__mmask16)0xFFFF, x + i + 16);                                            \
            sum2_f32x16 = term(sum2_f32x16, (__mmask16)0xFFFF, x + i + 32);                                            \
            sum3_f32x16 = term(sum3_f32x16, (__mmask16)0xFFFF, x + i + 48);                                            \
        }                                                                                                              \
        if (i < n) sum0_f32x16 = term(sum0_f32x16, tf_tail_avx512(n - i), x + i);                                      \
        if (i + 16 < n) sum1_f32x16 = term(sum1_f32x16, tf_tail_avx512(n - i - 16), x + i + 16);                       \
        if (i + 32 < n) sum2_f32x16 = term(sum2_f32x16, tf_tail_avx512(n - i - 32), x + i + 32);                       \
        if (i + 48 < n) sum3_f32x16 = term(sum3_f32x16, tf_tail_avx512(n - i - 48), x + i + 48);                       \
        (total) = tf_fold_f32x16(                                                                                      \
            _mm512_add_ps(_mm512_add_ps(sum0_f32x16, sum2_f32x16), _mm512_add_ps(sum1_f32x16, sum3_f32x16)));          \
    } while (0)

/* y = gamma unit + beta over the row, unit(mask, x) being the normalised element. */
#define TF_WRITE_ROW(unit)                                                                                             \
    for (int32_t i = 0; i < n; i += 16) {                                                                              \
        const __mmask16 mask = tf_tail_avx512(n - i);                                                                  \
        const __m512 beta_f32x16 = beta ? _mm512_maskz_loadu_ps(mask, beta + i) : _mm512_setzero_ps();                 \
        const __m512 gamma_f32x16 = _mm512_maskz_loadu_ps(mask, gamma + i);                                            \
        _mm512_mask_storeu_ps(y + i, mask, _mm512_fmadd_ps(gamma_f32x16, unit(mask, x + i), beta_f32x16));             \
    }

void tf_layernorm_f32_avx512(const float *x, const float *gamma, const float *beta, float *y, float eps, int32_t n) {
    const float share = 1.0f / (float)n;
    const __m512 shift_f32x16 = _mm512_set1_ps(x[0]);
    float sum;
#define SHIFTED(mask, at) _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, at), shift_f32x16)
#define ADD(sum_f32x16, mask, at) _mm512_add_ps(sum_f32x16, SHIFTED(mask, at))
    TF_SUM_ROW(sum, ADD);
    const __m512 mean_f32x16 = _mm512_set1_ps(sum * share);
#define CENTRED(mask, at) _mm512_maskz_sub_ps(mask, SHIFTED(mask, at), mean_f32x16)
#define SQUARE(sum_f32x16, mask, at) _mm512_fmadd_ps(CENTRED(mask, at), CENTRED(mask, at), sum_f32x16)
    TF_SUM_ROW(sum, SQUARE);
    const __m512 inverse_f32x16 = _mm512_set1_ps(1.0f / sqrtf(sum * share + eps));
#define UNIT(mask, at) _mm512_mul_ps(CENTRED(mask, at), inverse_f32x16)
    TF_WRITE_ROW(UNIT)
}

void tf_rmsnorm_f32_avx512(const float *x, const float *gamma, const float *beta, float *y, float eps, int32_t n) {
    const float share = 1.0f / (float)n;
    float sum;
#define PLAIN(mask, at) _mm512_maskz_loadu_ps(mask, at)
#define PLAIN_SQUARE(sum_f32x16, mask, at) _mm512_fmadd_ps(PLAIN(mask, at), PLAIN(mask, at), sum_f32x16)
    TF_SUM_ROW(sum, PLAIN_SQUARE);
    const __m512 inverse_f32x16 = _mm512_set1_ps(1.0f / sqrtf(sum * share + eps));
#define PLAIN_UNIT(mask, at) _mm512_mul_ps(PLAIN(mask, at), inverse_f32x16)
    TF_WRITE_ROW(PLAIN_UNIT)
}
