#include "exp2_f32.h"
#include "lstm_f32.h"

/* Pairs of blocks are panels of the weights; the gates are those of float32, on the sums times log2(e). */
void tf_lstm_finish_f16_scalar(const uint16_t *w, const float *x, const float *pre, float *c, float *h, int32_t blocks,
                                int32_t k) {
    float z[128];
    for (int32_t b = 0; b < blocks; b += 2) {
        const int32_t count = blocks - b >= 2 ? 2 : 1;
        tf_gemv_f16_scalar(w, x, pre + b * 64, z, count * 64, k);
        tf_scale_f32_scalar(z, z, (float)TF_LOG2E, count * 64);
        tf_lstm_gates_f32_scalar(z, c + b * 16, h + b * 16, count);
        w += (size_t)count * 64 * (size_t)k;
    }
}
