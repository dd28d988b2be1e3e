/* Floating-point exception flags are nobody's business here, and saying so lets gcc turn the clamps into selects and
 * vectorise; no value changes. Clang does so unasked. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif
#include "activations_f32.h"

/* e^x = s + r for x in +-TF_EXP_LIMIT or NaN. */
static inline tf_exp2_f32 exponential(float x) {
    const float n = (x * (float)TF_LOG2E + TF_EXP2_MAGIC) - TF_EXP2_MAGIC;
    const float f = ((x - n * TF_LN2_HIGH) - n * TF_LN2_LOW) * (float)TF_LOG2E;
    const float t = n + TF_EXP2_MAGIC;
    float q = TF_EXP2_Q5;
    q = q * f + TF_EXP2_Q4;
    q = q * f + TF_EXP2_Q3;
    q = q * f + TF_EXP2_Q2;
    q = q * f + TF_EXP2_Q1;
    q = q * f + TF_EXP2_Q0;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits << 23) + TF_EXP2_ONE;
    tf_exp2_f32 e;
    memcpy(&e.s, &bits, sizeof bits);
    e.r = e.s * (f * q);
    return e;
}

void tf_relu_f32_scalar(const float *x, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] = 0.0f > x[i] ? 0.0f : x[i];
}

void tf_sigmoid_f32_scalar(const float *x, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const tf_exp2_f32 e = exponential(tf_clamp_f32(-x[i], -TF_EXP_LIMIT, TF_EXP_LIMIT));
        y[i] = 1.0f / (1.0f + (e.s + e.r));
    }
}

void tf_tanh_f32_scalar(const float *x, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const tf_exp2_f32 e = exponential(tf_clamp_f32(x[i] + x[i], -TF_TANH_LIMIT, TF_TANH_LIMIT));
        y[i] = (e.r + (e.s - 1.0f)) / (e.r + (e.s + 1.0f));
    }
}

void tf_leaky_relu_f32_scalar(const float *x, float *y, float slope, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] = x[i] > 0.0f ? x[i] : slope * x[i];
}

void tf_silu_f32_scalar(const float *x, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const tf_exp2_f32 e = exponential(tf_clamp_f32(-x[i], -TF_EXP_LIMIT, TF_EXP_LIMIT));
        y[i] = (x[i] < -TF_EXP_LIMIT ? -TF_EXP_LIMIT : x[i]) / (1.0f + (e.s + e.r));
    }
}

void tf_gelu_f32_scalar(const float *x, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const float size = x[i] < 0.0f ? -x[i] : x[i], a = size > TF_GELU_END ? TF_GELU_END : size;
        float g = TF_GELU_G10;
        g = g * a + TF_GELU_G9;
        g = g * a + TF_GELU_G8;
        g = g * a + TF_GELU_G7;
        g = g * a + TF_GELU_G6;
        g = g * a + TF_GELU_G5;
        g = g * a + TF_GELU_G4;
        g = g * a + TF_GELU_G3;
        g = g * a + TF_GELU_G2;
        g = g * a + TF_GELU_G1;
        g = g * a + TF_GELU_G0;
        const tf_exp2_f32 e = tf_exp2_scalar(tf_clamp_f32(size * size * TF_GELU_SQUARE + g, TF_EXP2_ZERO, 0.0f));
        const float tail = e.s + e.r, bounded = x[i] < TF_GELU_LOWEST ? TF_GELU_LOWEST : x[i];
        y[i] = bounded * (x[i] < 0.0f ? tail : 1.0f - tail);
    }
}

void tf_gelu_tanh_f32_scalar(const float *x, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const float bounded = x[i] < TF_GELU_LOWEST ? TF_GELU_LOWEST : x[i];
        const float z = bounded * (TF_GELU_TANH3 * (bounded * bounded) + TF_GELU_TANH1);
        const tf_exp2_f32 e = tf_exp2_scalar(tf_clamp_f32(z, TF_EXP2_LOWEST, -TF_EXP2_LOWEST));
        y[i] = bounded / (1.0f + (e.s + e.r));
    }
}

void tf_softmax_f32_scalar(const float *x, float *y, int32_t n) {
    float maximum = -INFINITY, lanes[16] = {0};
    for (int32_t i = 0; i < n; i++) maximum = x[i] > maximum ? x[i] : maximum;
    for (int32_t i = 0; i < n; i++) {
        const tf_exp2_f32 e = exponential(tf_clamp_f32(x[i] - maximum, -TF_EXP_LIMIT, TF_EXP_LIMIT));
        y[i] = e.s + e.r;
        lanes[i % 16] += y[i];
    }
    const float inverse = 1.0f / tf_fold_f32(lanes);
    for (int32_t i = 0; i < n; i++) y[i] *= inverse;
}
