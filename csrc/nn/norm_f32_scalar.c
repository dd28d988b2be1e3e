#include "norm_f32.h"

#include <math.h>

void tf_layernorm_f32_scalar(const float *x, const float *gamma, const float *beta, float *y, float eps, int32_t n) {
    const float share = 1.0f / (float)n, shift = x[0];
    float lanes[64] = {0};
    for (int32_t i = 0; i < n; i++) lanes[i % 64] += x[i] - shift;
    const float mean = tf_fold_lanes_f32(lanes, 64) * share;
    for (int j = 0; j < 64; j++) lanes[j] = 0.0f;
    for (int32_t i = 0; i < n; i++) {
        const float centred = (x[i] - shift) - mean;
        lanes[i % 64] += centred * centred;
    }
    const float inverse = 1.0f / sqrtf(tf_fold_lanes_f32(lanes, 64) * share + eps);
    for (int32_t i = 0; i < n; i++) {
        const float unit = ((x[i] - shift) - mean) * inverse;
        y[i] = gamma[i] * unit + (beta ? beta[i] : 0.0f);
    }
}

void tf_rmsnorm_f32_scalar(const float *x, const float *gamma, const float *beta, float *y, float eps, int32_t n) {
    const float share = 1.0f / (float)n;
    float lanes[64] = {0};
    for (int32_t i = 0; i < n; i++) lanes[i % 64] += x[i] * x[i];
    const float inverse = 1.0f / sqrtf(tf_fold_lanes_f32(lanes, 64) * share + eps);
    for (int32_t i = 0; i < n; i++) y[i] = gamma[i] * (x[i] * inverse) + (beta ? beta[i] : 0.0f);
}
