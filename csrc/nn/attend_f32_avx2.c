#include "attend_f32.h"
#include "exp2_f32_avx2.h"
#include "lanes_f32_avx2.h"

#define TF_FMA8(sum, w, v) sum = _mm256_fmadd_ps(_mm256_loadu_ps(w), v, sum)

/* 64 scores in eight chains, then 16 in two; `apart` is the distance of two groups of keys. */
TF_INLINE __m256 scores4(const float *q, const float *k, const float *bias, float *z, int32_t dim, size_t apart,
                         __m256 highest_f32x8) {
    __m256 z0_f32x8 = _mm256_loadu_ps(bias), z1_f32x8 = _mm256_loadu_ps(bias + 8);
    __m256 z2_f32x8 = _mm256_loadu_ps(bias + 16), z3_f32x8 = _mm256_loadu_ps(bias + 24);
    __m256 z4_f32x8 = _mm256_loadu_ps(bias + 32), z5_f32x8 = _mm256_loadu_ps(bias + 40);
    __m256 z6_f32x8 = _mm256_loadu_ps(bias + 48), z7_f32x8 = _mm256_loadu_ps(bias + 56);
    for (int32_t d = 0; d < dim; d++, k += 16) {
        const __m256 q_f32x8 = _mm256_set1_ps(q[d]);
        TF_FMA8(z0_f32x8, k, q_f32x8);
        TF_FMA8(z1_f32x8, k + 8, q_f32x8);
        TF_FMA8(z2_f32x8, k + apart, q_f32x8);
        TF_FMA8(z3_f32x8, k + apart + 8, q_f32x8);
        TF_FMA8(z4_f32x8, k + 2 * apart, q_f32x8);
        TF_FMA8(z5_f32x8, k + 2 * apart + 8, q_f32x8);
        TF_FMA8(z6_f32x8, k + 3 * apart, q_f32x8);
        TF_FMA8(z7_f32x8, k + 3 * apart + 8, q_f32x8);
    }
    _mm256_storeu_ps(z, z0_f32x8);
    _mm256_storeu_ps(z + 8, z1_f32x8);
    _mm256_storeu_ps(z + 16, z2_f32x8);
    _mm256_storeu_ps(z + 24, z3_f32x8);
    _mm256_storeu_ps(z + 32, z4_f32x8);
    _mm256_storeu_ps(z + 40, z5_f32x8);
    _mm256_storeu_ps(z + 48, z6_f32x8);
    _mm256_storeu_ps(z + 56, z7_f32x8);
    const __m256 low_f32x8 = _mm256_max_ps(_mm256_max_ps(z0_f32x8, z1_f32x8), _mm256_max_ps(z2_f32x8, z3_f32x8));
    const __m256 high_f32x8 = _mm256_max_ps(_mm256_max_ps(z4_f32x8, z5_f32x8), _mm256_max_ps(z6_f32x8, z7_f32x8));
    return _mm256_max_ps(_mm256_max_ps(low_f32x8, high_f32x8), highest_f32x8);
}

TF_INLINE __m256 scores1(const float *q, const float *k, const float *bias, float *z, int32_t dim,
                         __m256 highest_f32x8) {
    __m256 z0_f32x8 = _mm256_loadu_ps(bias), z1_f32x8 = _mm256_loadu_ps(bias + 8);
    for (int32_t d = 0; d < dim; d++, k += 16) {
        const __m256 q_f32x8 = _mm256_set1_ps(q[d]);
        TF_FMA8(z0_f32x8, k, q_f32x8);
        TF_FMA8(z1_f32x8, k + 8, q_f32x8);
    }
    _mm256_storeu_ps(z, z0_f32x8);
    _mm256_storeu_ps(z + 8, z1_f32x8);
    return _mm256_max_ps(_mm256_max_ps(z0_f32x8, z1_f32x8), highest_f32x8);
}

/* z of one head; the highest is returned. */
TF_INLINE float scores(const float *q, const float *k, const float *bias, float *z, int32_t dim, int32_t slots) {
    const size_t apart = (size_t)dim * 16;
    __m256 highest_f32x8 = _mm256_set1_ps(-3.402823466e38f);
    int32_t s = 0;
    for (; s + 64 <= slots; s += 64, k += 4 * apart)
        highest_f32x8 = scores4(q, k, bias + s, z + s, dim, apart, highest_f32x8);
    for (; s < slots; s += 16, k += apart) highest_f32x8 = scores1(q, k, bias + s, z + s, dim, highest_f32x8);
    return tf_highest_f32x8(highest_f32x8);
}

TF_INLINE __m256 weight(const float *z, __m256 highest_f32x8) {
    const __m256 below_f32x8 = _mm256_sub_ps(_mm256_loadu_ps(z), highest_f32x8);
    return tf_exp2_value_avx2(tf_exp2_avx2(_mm256_max_ps(_mm256_set1_ps(TF_EXP2_ZERO), below_f32x8)));
}

/* p = 2^(z - highest) in place; the sum is returned. */
TF_INLINE float weights(float *p, float highest, int32_t slots) {
    const __m256 highest_f32x8 = _mm256_set1_ps(highest);
    __m256 low_f32x8 = _mm256_setzero_ps(), high_f32x8 = low_f32x8;
    for (int32_t s = 0; s < slots; s += 16) {
        const __m256 first_f32x8 = weight(p + s, highest_f32x8), second_f32x8 = weight(p + s + 8, highest_f32x8);
        _mm256_storeu_ps(p + s, first_f32x8);
        _mm256_storeu_ps(p + s + 8, second_f32x8);
        low_f32x8 = _mm256_add_ps(low_f32x8, first_f32x8);
        high_f32x8 = _mm256_add_ps(high_f32x8, second_f32x8);
    }
    return tf_fold_f32x8(low_f32x8, high_f32x8);
}

#define TF_FOUR(a, b, c, d) _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d))

/* y of 16 whole columns of one head. */
TF_INLINE void values16(const float *p, const float *v, float *y, size_t stride, int32_t slots, __m256 total_f32x8) {
    __m256 a0_f32x8 = _mm256_setzero_ps(), a1_f32x8 = a0_f32x8, a2_f32x8 = a0_f32x8, a3_f32x8 = a0_f32x8;
    __m256 b0_f32x8 = a0_f32x8, b1_f32x8 = a0_f32x8, b2_f32x8 = a0_f32x8, b3_f32x8 = a0_f32x8;
    for (int32_t s = 0; s < slots; s += 4, v += 4 * stride) {
        const __m256 p0_f32x8 = _mm256_set1_ps(p[s]), p1_f32x8 = _mm256_set1_ps(p[s + 1]);
        const __m256 p2_f32x8 = _mm256_set1_ps(p[s + 2]), p3_f32x8 = _mm256_set1_ps(p[s + 3]);
        TF_FMA8(a0_f32x8, v, p0_f32x8);
        TF_FMA8(b0_f32x8, v + 8, p0_f32x8);
        TF_FMA8(a1_f32x8, v + stride, p1_f32x8);
        TF_FMA8(b1_f32x8, v + stride + 8, p1_f32x8);
        TF_FMA8(a2_f32x8, v + 2 * stride, p2_f32x8);
        TF_FMA8(b2_f32x8, v + 2 * stride + 8, p2_f32x8);
        TF_FMA8(a3_f32x8, v + 3 * stride, p3_f32x8);
        TF_FMA8(b3_f32x8, v + 3 * stride + 8, p3_f32x8);
    }
    _mm256_storeu_ps(y, _mm256_div_ps(TF_FOUR(a0_f32x8, a1_f32x8, a2_f32x8, a3_f32x8), total_f32x8));
    _mm256_storeu_ps(y + 8, _mm256_div_ps(TF_FOUR(b0_f32x8, b1_f32x8, b2_f32x8, b3_f32x8), total_f32x8));
}

/* The same of the columns in `mask`. */
TF_INLINE void values8(const float *p, const float *v, float *y, __m256i mask_i32x8, size_t stride, int32_t slots,
                       __m256 total_f32x8) {
    __m256 sum0_f32x8 = _mm256_setzero_ps(), sum1_f32x8 = sum0_f32x8;
    __m256 sum2_f32x8 = sum0_f32x8, sum3_f32x8 = sum0_f32x8;
    for (int32_t s = 0; s < slots; s += 4, v += 4 * stride) {
        const __m256 v0_f32x8 = _mm256_maskload_ps(v, mask_i32x8);
        const __m256 v1_f32x8 = _mm256_maskload_ps(v + stride, mask_i32x8);
        const __m256 v2_f32x8 = _mm256_maskload_ps(v + 2 * stride, mask_i32x8);
        const __m256 v3_f32x8 = _mm256_maskload_ps(v + 3 * stride, mask_i32x8);
        sum0_f32x8 = _mm256_fmadd_ps(v0_f32x8, _mm256_set1_ps(p[s]), sum0_f32x8);
        sum1_f32x8 = _mm256_fmadd_ps(v1_f32x8, _mm256_set1_ps(p[s + 1]), sum1_f32x8);
        sum2_f32x8 = _mm256_fmadd_ps(v2_f32x8, _mm256_set1_ps(p[s + 2]), sum2_f32x8);
        sum3_f32x8 = _mm256_fmadd_ps(v3_f32x8, _mm256_set1_ps(p[s + 3]), sum3_f32x8);
    }
    _mm256_maskstore_ps(y, mask_i32x8,
                        _mm256_div_ps(TF_FOUR(sum0_f32x8, sum1_f32x8, sum2_f32x8, sum3_f32x8), total_f32x8));
}

/* The heads are walked one kind of work at a time, so that one head's work fills the waiting of its neighbour's. The
 * first float of a head's y keeps its highest score between the walks, then its sum. */
void tf_attend_f32_avx2(const float *q, const float *k, const float *v, const float *bias, float *p, float *y,
                        int32_t heads, int32_t group, int32_t dim, int32_t value_dim, int32_t slots) {
    const size_t stride = (size_t)((heads / group * value_dim + 15) / 16 * 16), row = (size_t)slots;
    const size_t keys = row * (size_t)dim, width = (size_t)value_dim;
    for (int32_t h = 0; h < heads; h++)
        y[(size_t)h * width] = scores(q + (size_t)h * (size_t)dim, k + (size_t)(h / group) * keys,
                                      bias + (size_t)h * row, p + (size_t)h * row, dim, slots);
    for (int32_t h = 0; h < heads; h++)
        y[(size_t)h * width] = weights(p + (size_t)h * row, y[(size_t)h * width], slots);
    for (int32_t h = 0; h < heads; h++, p += row, y += width) {
        const __m256 total_f32x8 = _mm256_set1_ps(y[0]);
        const float *value = v + (size_t)(h / group) * width;
        int32_t j = 0;
        for (; j + 16 <= value_dim; j += 16) values16(p, value + j, y + j, stride, slots, total_f32x8);
        for (; j < value_dim; j += 8)
            values8(p, value + j, y + j, tf_tail_avx2(value_dim - j), stride, slots, total_f32x8);
    }
}
