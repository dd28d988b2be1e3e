/* Floating-point exception flags are nobody's business here, and saying so lets gcc turn the clamps into selects and
 * vectorise; no value changes. Clang does so unasked. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif
#include "attend_f32.h"

void tf_attend_f32_scalar(const float *q, const float *k, const float *v, const float *bias, float *p, float *y,
                          int32_t heads, int32_t group, int32_t dim, int32_t value_dim, int32_t slots) {
    const int32_t stride = (heads / group * value_dim + 15) / 16 * 16;
    for (int32_t head = 0; head < heads; head++, q += dim, bias += slots, p += slots, y += value_dim) {
        const float *keys = k + (size_t)(head / group) * (size_t)slots * (size_t)dim;
        const float *values = v + (size_t)(head / group) * (size_t)value_dim;
        float sum[16];
        for (int32_t first = 0; first < slots; first += 16, keys += (size_t)dim * 16) {
            for (int j = 0; j < 16; j++) sum[j] = bias[first + j];
            for (int32_t d = 0; d < dim; d++)
                for (int j = 0; j < 16; j++) sum[j] += q[d] * keys[d * 16 + j];
            for (int j = 0; j < 16; j++) p[first + j] = sum[j];
        }
        float highest = p[0];
        for (int32_t s = 1; s < slots; s++) highest = p[s] > highest ? p[s] : highest;
        for (int j = 0; j < 16; j++) sum[j] = 0.0f;
        for (int32_t first = 0; first < slots; first += 16)
            for (int j = 0; j < 16; j++) {
                const float below = p[first + j] - highest;
                const tf_exp2_f32 e = tf_exp2_scalar(below < TF_EXP2_ZERO ? TF_EXP2_ZERO : below);
                p[first + j] = e.s + e.r;
                sum[j] += p[first + j];
            }
        const float total = tf_fold_lanes_f32(sum, 16);
        for (int32_t j = 0; j < value_dim; j++) {
            float part[4] = {0};
            for (int32_t s = 0; s < slots; s += 4)
                for (int i = 0; i < 4; i++) part[i] += p[s + i] * values[(size_t)(s + i) * (size_t)stride + (size_t)j];
            y[j] = ((part[0] + part[1]) + (part[2] + part[3])) / total;
        }
    }
}
