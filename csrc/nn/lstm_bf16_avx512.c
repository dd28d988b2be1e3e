#include "gemv_bf16_avx512.h"
#include "lstm_avx512.h"

void tf_lstm_finish_bf16_avx512(const uint16_t *w, const float *x, const float *pre, float *c, float *h, int32_t blocks,
                                int32_t k) {
    tf_lstm_panels_avx512(w, x, pre, c, h, blocks, k, 1);
}
