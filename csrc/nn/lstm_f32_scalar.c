/* Floating-point exception flags are nobody's business here, and saying so lets gcc turn the clamps into selects and
 * vectorise; no value changes. Clang does so unasked. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif
#include "exp2_f32.h"
#include "lstm_f32.h"

/* z holds i, f, g, o of 16 units. */
static inline void gates(const float *restrict z, float *restrict c, float *restrict h) {
    for (int j = 0; j < 16; j++) {
        const tf_exp2_f32 ei = tf_exp2_scalar(tf_clamp_f32(z[j], -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
        const tf_exp2_f32 ef = tf_exp2_scalar(tf_clamp_f32(z[16 + j], -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
        const tf_exp2_f32 eg = tf_exp2_scalar(tf_clamp_f32(z[32 + j], -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
        const tf_exp2_f32 eo = tf_exp2_scalar(tf_clamp_f32(z[48 + j], -TF_EXP2_LIMIT, TF_EXP2_LIMIT));
        const float f1 = ef.r + (ef.s + 1.0f);
        const float ig = (ei.r + (ei.s + 1.0f)) * (eg.r + (eg.s + 1.0f));
        const float next = (c[j] * ig + (eg.r + (eg.s - 1.0f)) * f1) / (f1 * ig);
        const float y = tf_clamp_f32(next * (float)(2.0 * TF_LOG2E), -TF_EXP2_LIMIT, TF_EXP2_LIMIT);
        const tf_exp2_f32 ec = tf_exp2_scalar(y);
        c[j] = next;
        h[j] = (ec.r + (ec.s - 1.0f)) / ((eo.r + (eo.s + 1.0f)) * (ec.r + (ec.s + 1.0f)));
    }
}

void tf_lstm_gates_f32_scalar(const float *z, float *c, float *h, int32_t blocks) {
    for (int32_t b = 0; b < blocks; b++) gates(z + b * 64, c + b * 16, h + b * 16);
}

void tf_lstm_finish_f32_scalar(const float *w, const float *x, const float *pre, float *c, float *h, int32_t blocks,
                               int32_t k) {
    float z[128];
    for (int32_t b = 0; b < blocks; b += 2) {
        const int32_t count = blocks - b >= 2 ? 2 : 1;
        tf_gemv_f32_scalar(w, x, pre + b * 64, z, count * 64, k);
        tf_lstm_gates_f32_scalar(z, c + b * 16, h + b * 16, count);
        w += (size_t)count * 64 * (size_t)k;
    }
}
