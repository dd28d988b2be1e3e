/* The four-byte dot product of AVX2 saturates (gemv_i8.h), so bytes are widened to 16 bits and multiplied in pairs: a
 * vector of sums holds four rows, two partial sums each, which meet after the last column. Widening a weight, the
 * costly part, serves three rows of bytes. */
#include "gemm_i8.h"

#include <immintrin.h>

#define TF_INLINE static inline __attribute__((always_inline))
#define TF_EACH(M) M(0) M(1) M(2)
#define TF_WIDE(p) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p)))

/* Eight whole sums in row order from two vectors of partial ones. */
TF_INLINE __m256i meet(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
}

/* One group of 16 rows for `count` rows of bytes; those from `low` on start from nothing instead of from corr. */
TF_INLINE void dots(const int8_t *w, size_t step, const uint8_t *const *q, const int32_t *corr, int32_t k,
                    const int count, const int low, __m256i (*sums)[2]) {
#define TF_START(s)                                                                                                    \
    const uint8_t *const q##s = q[s < count ? s : 0];                                                                  \
    __m256i a##s##_i32x8 = _mm256_setzero_si256(), b##s##_i32x8 = a##s##_i32x8, c##s##_i32x8 = a##s##_i32x8,           \
            d##s##_i32x8 = a##s##_i32x8;
    TF_EACH(TF_START)
#undef TF_START
    for (int32_t i = 0; i < k; i += 4, w += step) {
#define TF_WIDEN(s)                                                                                                    \
    const __m256i v##s##_i16x16 =                                                                                      \
        s < count ? _mm256_cvtepu8_epi16(_mm_set1_epi32(tf_load_four(q##s + i))) : _mm256_setzero_si256();
        TF_EACH(TF_WIDEN)
#undef TF_WIDEN
        __m256i w_i16x16;
#define TF_DOT(s, sum)                                                                                                 \
    if (s < count) sum##s##_i32x8 = _mm256_add_epi32(sum##s##_i32x8, _mm256_madd_epi16(w_i16x16, v##s##_i16x16));
#define TF_A(s) TF_DOT(s, a)
#define TF_B(s) TF_DOT(s, b)
#define TF_C(s) TF_DOT(s, c)
#define TF_D(s) TF_DOT(s, d)
        w_i16x16 = TF_WIDE(w);
        TF_EACH(TF_A)
        w_i16x16 = TF_WIDE(w + 16);
        TF_EACH(TF_B)
        w_i16x16 = TF_WIDE(w + 32);
        TF_EACH(TF_C)
        w_i16x16 = TF_WIDE(w + 48);
        TF_EACH(TF_D)
#undef TF_A
#undef TF_B
#undef TF_C
#undef TF_D
#undef TF_DOT
    }
    const __m256i first_i32x8 = _mm256_loadu_si256((const __m256i *)corr);
    const __m256i second_i32x8 = _mm256_loadu_si256((const __m256i *)(corr + 8));
#define TF_END(s)                                                                                                      \
    if (s < count) {                                                                                                   \
        sums[s][0] = meet(a##s##_i32x8, b##s##_i32x8);                                                                 \
        sums[s][1] = meet(c##s##_i32x8, d##s##_i32x8);                                                                 \
        if (s < low) {                                                                                                 \
            sums[s][0] = _mm256_add_epi32(sums[s][0], first_i32x8);                                                    \
            sums[s][1] = _mm256_add_epi32(sums[s][1], second_i32x8);                                                   \
        }                                                                                                              \
    }
    TF_EACH(TF_END)
#undef TF_END
}

TF_INLINE void block(const int8_t *w, size_t step, const uint8_t *const *q, const float *scale, const int32_t *corr,
                     const float *const *base, float *const *z, int32_t at, int32_t k, const int count,
                     const int planes) {
    __m256i sums[3][2];
    const uint8_t *bytes[3];
    const size_t plane = planes == 2 ? tf_plane_i8a16(k) : 0;
    for (int s = 0; s < count * planes; s++) bytes[s] = s < count ? q[s] : q[s - count] + plane;
    dots(w, step, bytes, corr, k, count * planes, count, sums);
    for (int s = 0; s < count; s++)
        for (int half = 0; half < 2; half++) {
            __m256 sum_f32x8 = _mm256_cvtepi32_ps(sums[s][half]);
            if (planes == 2) {
                const __m256 low_f32x8 = _mm256_cvtepi32_ps(sums[s + count][half]);
                sum_f32x8 = _mm256_fmadd_ps(_mm256_set1_ps(256.0f), sum_f32x8, low_f32x8);
            }
            const __m256 scale_f32x8 = _mm256_loadu_ps(scale + 8 * half);
            const __m256 base_f32x8 = _mm256_loadu_ps(base[s] + at + 8 * half);
            _mm256_storeu_ps(z[s] + at + 8 * half, _mm256_fmadd_ps(scale_f32x8, sum_f32x8, base_f32x8));
        }
}

TF_INLINE void gemm(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                    const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k, const int planes) {
    for (int32_t left = (rows + 15) / 16, at = 0, groups; left > 0; left -= groups) {
        groups = tf_panel_groups(left);
        const size_t step = (size_t)groups * 64;
        for (int32_t group = 0; group < groups; group++, at += 16) {
            const int8_t *const part = w + group * 64;
            int32_t s = 0;
            if (planes == 2) {
                for (; s < n; s++) block(part, step, q + s, scale + at, corr + at, base + s, z + s, at, k, 1, 2);
                continue;
            }
            for (; s + 3 <= n; s += 3) block(part, step, q + s, scale + at, corr + at, base + s, z + s, at, k, 3, 1);
            if (n - s == 2) block(part, step, q + s, scale + at, corr + at, base + s, z + s, at, k, 2, 1);
            if (n - s == 1) block(part, step, q + s, scale + at, corr + at, base + s, z + s, at, k, 1, 1);
        }
        w += step * (size_t)((k + 3) / 4);
    }
}

void tf_gemm_i8_avx2(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                     const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k) {
    gemm(w, q, scale, corr, base, z, n, rows, k, 1);
}

void tf_gemm_i8a16_avx2(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                        const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k) {
    gemm(w, q, scale, corr, base, z, n, rows, k, 2);
}
