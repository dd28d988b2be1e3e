#include "attend_f32.h"
#include "exp2_f32_avx512.h"
#include "lanes_f32_avx512.h"

#define TF_FMA16(sum, w, v) sum = _mm512_fmadd_ps(_mm512_loadu_ps(w), v, sum)

/* 128 scores: eight chains, so that none waits for its own last sum. `apart` is the distance of two groups of keys. */
TF_INLINE __m512 scores8(const float *q, const float *k, const float *bias, float *z, int32_t dim, size_t apart,
                         __m512 highest_f32x16) {
    __m512 z0_f32x16 = _mm512_loadu_ps(bias), z1_f32x16 = _mm512_loadu_ps(bias + 16);
    __m512 z2_f32x16 = _mm512_loadu_ps(bias + 32), z3_f32x16 = _mm512_loadu_ps(bias + 48);
    __m512 z4_f32x16 = _mm512_loadu_ps(bias + 64), z5_f32x16 = _mm512_loadu_ps(bias + 80);
    __m512 z6_f32x16 = _mm512_loadu_ps(bias + 96), z7_f32x16 = _mm512_loadu_ps(bias + 112);
    const float *k4 = k + 4 * apart;
    for (int32_t d = 0; d < dim; d++, k += 16, k4 += 16) {
        const __m512 q_f32x16 = _mm512_set1_ps(q[d]);
        TF_FMA16(z0_f32x16, k, q_f32x16);
        TF_FMA16(z1_f32x16, k + apart, q_f32x16);
        TF_FMA16(z2_f32x16, k + 2 * apart, q_f32x16);
        TF_FMA16(z3_f32x16, k + 3 * apart, q_f32x16);
        TF_FMA16(z4_f32x16, k4, q_f32x16);
        TF_FMA16(z5_f32x16, k4 + apart, q_f32x16);
        TF_FMA16(z6_f32x16, k4 + 2 * apart, q_f32x16);
        TF_FMA16(z7_f32x16, k4 + 3 * apart, q_f32x16);
    }
    _mm512_storeu_ps(z, z0_f32x16);
    _mm512_storeu_ps(z + 16, z1_f32x16);
    _mm512_storeu_ps(z + 32, z2_f32x16);
    _mm512_storeu_ps(z + 48, z3_f32x16);
    _mm512_storeu_ps(z + 64, z4_f32x16);
    _mm512_storeu_ps(z + 80, z5_f32x16);
    _mm512_storeu_ps(z + 96, z6_f32x16);
    _mm512_storeu_ps(z + 112, z7_f32x16);
    const __m512 low_f32x16 =
        _mm512_max_ps(_mm512_max_ps(z0_f32x16, z1_f32x16), _mm512_max_ps(z2_f32x16, z3_f32x16));
    const __m512 high_f32x16 =
        _mm512_max_ps(_mm512_max_ps(z4_f32x16, z5_f32x16), _mm512_max_ps(z6_f32x16, z7_f32x16));
    return _mm512_max_ps(_mm512_max_ps(low_f32x16, high_f32x16), highest_f32x16);
}

TF_INLINE __m512 scores2(const float *q, const float *k, const float *bias, float *z, int32_t dim, size_t apart,
                         __m512 highest_f32x16) {
    __m512 z0_f32x16 = _mm512_loadu_ps(bias), z1_f32x16 = _mm512_loadu_ps(bias + 16);
    for (int32_t d = 0; d < dim; d++, k += 16) {
        const __m512 q_f32x16 = _mm512_set1_ps(q[d]);
        TF_FMA16(z0_f32x16, k, q_f32x16);
        TF_FMA16(z1_f32x16, k + apart, q_f32x16);
    }
    _mm512_storeu_ps(z, z0_f32x16);
    _mm512_storeu_ps(z + 16, z1_f32x16);
    return _mm512_max_ps(_mm512_max_ps(z0_f32x16, z1_f32x16), highest_f32x16);
}

TF_INLINE __m512 scores1(const float *q, const float *k, const float *bias, float *z, int32_t dim,
                         __m512 highest_f32x16) {
    __m512 z_f32x16 = _mm512_loadu_ps(bias);
    for (int32_t d = 0; d < dim; d++, k += 16) TF_FMA16(z_f32x16, k, _mm512_set1_ps(q[d]));
    _mm512_storeu_ps(z, z_f32x16);
    return _mm512_max_ps(z_f32x16, highest_f32x16);
}

/* z of one head; the highest is returned. */
TF_INLINE float scores(const float *q, const float *k, const float *bias, float *z, int32_t dim, int32_t slots) {
    const size_t apart = (size_t)dim * 16;
    __m512 highest_f32x16 = _mm512_set1_ps(-3.402823466e38f);
    int32_t s = 0;
    for (; s + 128 <= slots; s += 128, k += 8 * apart)
        highest_f32x16 = scores8(q, k, bias + s, z + s, dim, apart, highest_f32x16);
    for (; s + 32 <= slots; s += 32, k += 2 * apart)
        highest_f32x16 = scores2(q, k, bias + s, z + s, dim, apart, highest_f32x16);
    if (s < slots) highest_f32x16 = scores1(q, k, bias + s, z + s, dim, highest_f32x16);
    return tf_highest_f32x16(highest_f32x16);
}

/* p = 2^(z - highest) in place; the sum is returned. */
TF_INLINE float weights(float *p, float highest, int32_t slots) {
    const __m512 highest_f32x16 = _mm512_set1_ps(highest), lowest_f32x16 = _mm512_set1_ps(TF_EXP2_ZERO);
    __m512 sum_f32x16 = _mm512_setzero_ps();
    for (int32_t s = 0; s < slots; s += 16) {
        const __m512 below_f32x16 = _mm512_sub_ps(_mm512_loadu_ps(p + s), highest_f32x16);
        const __m512 p_f32x16 = tf_exp2_value_avx512(tf_exp2_avx512(_mm512_max_ps(lowest_f32x16, below_f32x16)));
        _mm512_storeu_ps(p + s, p_f32x16);
        sum_f32x16 = _mm512_add_ps(sum_f32x16, p_f32x16);
    }
    return tf_fold_f32x16(sum_f32x16);
}

#define TF_FOUR(a, b, c, d) _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d))

/* One vector of 16 columns: its weights, its values, the sum of its head's weights. */
typedef struct vector {
    const float *p, *v;
    float total;
} vector;

/* y of one vector (of those of its columns that are in `mask`). */
TF_INLINE void values1(const vector *one, __mmask16 mask, size_t stride, int32_t slots, float *y) {
    const float *p = one->p, *v = one->v;
    __m512 sum0_f32x16 = _mm512_setzero_ps(), sum1_f32x16 = sum0_f32x16, sum2_f32x16 = sum0_f32x16,
           sum3_f32x16 = sum0_f32x16;
    for (int32_t s = 0; s < slots; s += 4, v += 4 * stride) {
        const __m512 v0_f32x16 = _mm512_maskz_loadu_ps(mask, v), v1_f32x16 = _mm512_maskz_loadu_ps(mask, v + stride);
        const __m512 v2_f32x16 = _mm512_maskz_loadu_ps(mask, v + 2 * stride);
        const __m512 v3_f32x16 = _mm512_maskz_loadu_ps(mask, v + 3 * stride);
        sum0_f32x16 = _mm512_fmadd_ps(v0_f32x16, _mm512_set1_ps(p[s]), sum0_f32x16);
        sum1_f32x16 = _mm512_fmadd_ps(v1_f32x16, _mm512_set1_ps(p[s + 1]), sum1_f32x16);
        sum2_f32x16 = _mm512_fmadd_ps(v2_f32x16, _mm512_set1_ps(p[s + 2]), sum2_f32x16);
        sum3_f32x16 = _mm512_fmadd_ps(v3_f32x16, _mm512_set1_ps(p[s + 3]), sum3_f32x16);
    }
    _mm512_mask_storeu_ps(y, mask, _mm512_div_ps(TF_FOUR(sum0_f32x16, sum1_f32x16, sum2_f32x16, sum3_f32x16),
                                                 _mm512_set1_ps(one->total)));
}

/* Four vectors of columns at once. Four weights are loaded together and spread by shuffles, because a load per weight
 * would double the loads, which are what limits this loop. */
TF_INLINE void values4(const vector *vectors, size_t stride, int32_t slots, float *y) {
    const float *va = vectors[0].v, *vb = vectors[1].v, *vc = vectors[2].v, *vd = vectors[3].v;
    const float *pa = vectors[0].p, *pb = vectors[1].p, *pc = vectors[2].p, *pd = vectors[3].p;
    __m512 a0_f32x16 = _mm512_setzero_ps(), a1_f32x16 = a0_f32x16, a2_f32x16 = a0_f32x16, a3_f32x16 = a0_f32x16;
    __m512 b0_f32x16 = a0_f32x16, b1_f32x16 = a0_f32x16, b2_f32x16 = a0_f32x16, b3_f32x16 = a0_f32x16;
    __m512 c0_f32x16 = a0_f32x16, c1_f32x16 = a0_f32x16, c2_f32x16 = a0_f32x16, c3_f32x16 = a0_f32x16;
    __m512 d0_f32x16 = a0_f32x16, d1_f32x16 = a0_f32x16, d2_f32x16 = a0_f32x16, d3_f32x16 = a0_f32x16;
    for (int32_t s = 0; s < slots; s += 4) {
        const __m512 pa_f32x16 = _mm512_broadcast_f32x4(_mm_loadu_ps(pa + s));
        const __m512 pb_f32x16 = _mm512_broadcast_f32x4(_mm_loadu_ps(pb + s));
        const __m512 pc_f32x16 = _mm512_broadcast_f32x4(_mm_loadu_ps(pc + s));
        const __m512 pd_f32x16 = _mm512_broadcast_f32x4(_mm_loadu_ps(pd + s));
#define TF_SLOT(j, lane, a, b, c, d)                                                                                   \
    TF_FMA16(a, va + (j)*stride, _mm512_permute_ps(pa_f32x16, lane));                                                  \
    TF_FMA16(b, vb + (j)*stride, _mm512_permute_ps(pb_f32x16, lane));                                                  \
    TF_FMA16(c, vc + (j)*stride, _mm512_permute_ps(pc_f32x16, lane));                                                  \
    TF_FMA16(d, vd + (j)*stride, _mm512_permute_ps(pd_f32x16, lane))
        TF_SLOT(0, 0x00, a0_f32x16, b0_f32x16, c0_f32x16, d0_f32x16);
        TF_SLOT(1, 0x55, a1_f32x16, b1_f32x16, c1_f32x16, d1_f32x16);
        TF_SLOT(2, 0xAA, a2_f32x16, b2_f32x16, c2_f32x16, d2_f32x16);
        TF_SLOT(3, 0xFF, a3_f32x16, b3_f32x16, c3_f32x16, d3_f32x16);
        va += 4 * stride, vb += 4 * stride, vc += 4 * stride, vd += 4 * stride;
    }
#define TF_DIVIDED(a0, a1, a2, a3, at) _mm512_div_ps(TF_FOUR(a0, a1, a2, a3), _mm512_set1_ps(vectors[at].total))
    _mm512_storeu_ps(y, TF_DIVIDED(a0_f32x16, a1_f32x16, a2_f32x16, a3_f32x16, 0));
    _mm512_storeu_ps(y + 16, TF_DIVIDED(b0_f32x16, b1_f32x16, b2_f32x16, b3_f32x16, 1));
    _mm512_storeu_ps(y + 32, TF_DIVIDED(c0_f32x16, c1_f32x16, c2_f32x16, c3_f32x16, 2));
    _mm512_storeu_ps(y + 48, TF_DIVIDED(d0_f32x16, d1_f32x16, d2_f32x16, d3_f32x16, 3));
}

/* The heads are walked three times, so that one head's work fills the waiting of its neighbour's. Between the walks the
 * first float of a head's y keeps its highest score, then its sum; a sum is read before the vector that replaces it is
 * written. */
void tf_attend_f32_avx512(const float *q, const float *k, const float *v, const float *bias, float *p, float *y,
                          int32_t heads, int32_t group, int32_t dim, int32_t value_dim, int32_t slots) {
    const size_t stride = (size_t)((heads / group * value_dim + 15) / 16 * 16), row = (size_t)slots;
    const size_t keys = row * (size_t)dim, width = (size_t)value_dim;
    for (int32_t h = 0; h < heads; h++)
        y[(size_t)h * width] = scores(q + (size_t)h * (size_t)dim, k + (size_t)(h / group) * keys,
                                      bias + (size_t)h * row, p + (size_t)h * row, dim, slots);
    for (int32_t h = 0; h < heads; h++)
        y[(size_t)h * width] = weights(p + (size_t)h * row, y[(size_t)h * width], slots);

    /* Whole vectors are gathered four at a time, whichever heads they belong to. */
    vector gathered[4];
    float *first = y;
    int32_t count = 0, shared = 0;
    for (int32_t h = 0; h < heads; h++, p += row) {
        const float total = y[(size_t)h * width];
        int32_t j = 0;
        for (; j + 16 <= value_dim; j += 16) {
            if (count == 0) first = y + (size_t)h * width + (size_t)j;
            gathered[count++] = (vector){p, v + j, total};
            if (count == 4) {
                values4(gathered, stride, slots, first);
                count = 0;
            }
        }
        if (j < value_dim) {
            /* The vectors of a head with an odd end are not gathered with the next head's: they do not adjoin. */
            for (int32_t i = 0; i < count; i++) values1(gathered + i, (__mmask16)0xFFFF, stride, slots, first + 16 * i);
            count = 0;
            const vector rest = {p, v + j, total};
            values1(&rest, tf_tail_avx512(value_dim - j), stride, slots, y + (size_t)h * width + (size_t)j);
        }
        if (++shared == group) {
            shared = 0;
            v += width;
        }
    }
    for (int32_t i = 0; i < count; i++) values1(gathered + i, (__mmask16)0xFFFF, stride, slots, first + 16 * i);
}
