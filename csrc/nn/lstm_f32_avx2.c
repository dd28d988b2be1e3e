#include "gemv_f32_avx2.h"
#include "lstm_avx2.h"

void tf_lstm_gates_f32_avx2(const float *z, float *c, float *h, int32_t blocks) {
    for (int32_t b = 0; b < blocks; b++, z += 64, c += 16, h += 16)
        for (int half = 0; half < 16; half += 8)
            tf_gates_avx2(_mm256_loadu_ps(z + half), _mm256_loadu_ps(z + 16 + half), _mm256_loadu_ps(z + 32 + half),
                          _mm256_loadu_ps(z + 48 + half), c + half, h + half);
}

void tf_lstm_finish_f32_avx2(const float *w, const float *x, const float *pre, float *c, float *h, int32_t blocks,
                             int32_t k) {
    tf_lstm_panels_avx2(w, x, pre, c, h, blocks, k, 0);
}
