#include "gemv_f32_avx512.h"
#include "lstm_avx512.h"

void tf_lstm_gates_f32_avx512(const float *z, float *c, float *h, int32_t blocks) {
    for (int32_t b = 0; b < blocks; b++, z += 64, c += 16, h += 16)
        tf_gates_avx512(_mm512_loadu_ps(z), _mm512_loadu_ps(z + 16), _mm512_loadu_ps(z + 32),
                        _mm512_loadu_ps(z + 48), c, h);
}

void tf_lstm_finish_f32_avx512(const float *w, const float *x, const float *pre, float *c, float *h, int32_t blocks,
                               int32_t k) {
    tf_lstm_panels_avx512(w, x, pre, c, h, blocks, k, 0);
}
