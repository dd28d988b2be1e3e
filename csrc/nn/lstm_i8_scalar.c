#include "exact_i8.h"
#include "gemv_i8.h"

static inline tf_exp2_exact clamped(float z) { return tf_exp2_of(tf_clamp_f32(z, -TF_EXP2_LIMIT, TF_EXP2_LIMIT)); }

void tf_lstm_gates_i8_scalar(const float *z, float *c, float *h, int32_t blocks) {
    for (int32_t b = 0; b < blocks; b++, z += 64, c += 16, h += 16)
        for (int j = 0; j < 16; j++) {
            const tf_exp2_exact ei = clamped(z[j]), ef = clamped(z[16 + j]), eg = clamped(z[32 + j]),
                                eo = clamped(z[48 + j]);
            const float f1 = tf_fma_exact(ef.s, ef.p, 1.0f);
            const float ig = tf_fma_exact(ei.s, ei.p, 1.0f) * tf_fma_exact(eg.s, eg.p, 1.0f);
            const float top = tf_fma_exact(c[j], ig, tf_fma_exact(eg.s, eg.p, -1.0f) * f1);
            const float next = top / (f1 * ig);
            const tf_exp2_exact ec = clamped(next * (float)(2.0 * TF_LOG2E));
            c[j] = next;
            h[j] = tf_fma_exact(ec.s, ec.p, -1.0f) / (tf_fma_exact(eo.s, eo.p, 1.0f) * tf_fma_exact(ec.s, ec.p, 1.0f));
        }
}

void tf_lstm_fused_i8_scalar(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr,
                             const float *pre, float *c, float *h, uint8_t *hq, float inverse, int32_t *nan,
                             int32_t blocks, int32_t k) {
    float z[128];
    for (int32_t count; blocks > 0; blocks -= count) {
        count = blocks >= 2 ? 2 : 1;
        tf_gemv_i8_scalar(w, q, scale, corr, pre, z, count * 64, k);
        tf_lstm_gates_i8_scalar(z, c, h, count);
        if (hq) {
            tf_quantize_i8_scalar(h, hq, inverse, count * 16, nan);
            hq += count * 16;
        }
        w += (size_t)count * 64 * (size_t)tf_up4(k);
        scale += count * 64, corr += count * 64, pre += count * 64, c += count * 16, h += count * 16;
    }
}

void tf_lstm_finish_i8_scalar(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr,
                              const float *pre, float *c, float *h, int32_t blocks, int32_t k) {
    tf_lstm_fused_i8_scalar(w, q, scale, corr, pre, c, h, NULL, 0.0f, NULL, blocks, k);
}

void tf_lstm_finish_i8a16_scalar(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr,
                                 const float *pre, float *c, float *h, int32_t blocks, int32_t k) {
    float z[128];
    for (int32_t count; blocks > 0; blocks -= count) {
        count = blocks >= 2 ? 2 : 1;
        tf_gemv_i8a16_scalar(w, q, scale, corr, pre, z, count * 64, k);
        tf_lstm_gates_i8_scalar(z, c, h, count);
        w += (size_t)count * 64 * (size_t)tf_up4(k);
        scale += count * 64, corr += count * 64, pre += count * 64, c += count * 16, h += count * 16;
    }
}
