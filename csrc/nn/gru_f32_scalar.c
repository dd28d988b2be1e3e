/* Floating-point exception flags are nobody's business here, and saying so lets gcc turn the clamps into selects and
 * vectorise; no value changes. Clang does so unasked. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif
#include "exp2_f32.h"
#include "gru_f32.h"

static inline tf_exp2_f32 exponential(float z) {
    return tf_exp2_scalar(tf_clamp_f32(z, -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
}

/* 1 / (1 + 2^z), with the wider clamp. */
static inline float gate(float z) {
    const tf_exp2_f32 e = tf_exp2_scalar(tf_clamp_f32(z, TF_EXP2_LOWEST, -TF_EXP2_LOWEST));
    return 1.0f / (e.r + (e.s + 1.0f));
}

static inline float next(float zu, float zn, float h) {
    const tf_exp2_f32 u = exponential(zu), n = exponential(zn);
    const float n1 = n.r + (n.s + 1.0f);
    const float top = (u.s + u.r) * (n.r + (n.s - 1.0f)) + h * n1;
    return top / ((u.r + (u.s + 1.0f)) * n1);
}

void tf_gru_gates_f32_scalar(const float *zx, const float *zh, float *h, int32_t blocks) {
    const int32_t units = 16 * blocks;
    for (int32_t i = 0; i < units; i++) {
        const float reset = gate(zx[i] + zh[i]);
        h[i] = next(zx[units + i] + zh[units + i], zx[2 * units + i] + reset * zh[2 * units + i], h[i]);
    }
}

void tf_gru_reset_f32_scalar(const float *zx, const float *zh, const float *h, float *rh, int32_t blocks) {
    for (int32_t i = 0; i < 16 * blocks; i++) rh[i] = gate(zx[i] + zh[i]) * h[i];
}

void tf_gru_late_f32_scalar(const float *zx, const float *zh, float *h, int32_t blocks) {
    const int32_t units = 16 * blocks;
    for (int32_t i = 0; i < units; i++)
        h[i] = next(zx[units + i] + zh[units + i], zx[2 * units + i] + zh[2 * units + i], h[i]);
}
