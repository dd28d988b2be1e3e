#include "gemv_bf16_avx2.h"
#include "lstm_avx2.h"

void tf_lstm_finish_bf16_avx2(const uint16_t *w, const float *x, const float *pre, float *c, float *h, int32_t blocks,
                              int32_t k) {
    tf_lstm_panels_avx2(w, x, pre, c, h, blocks, k, 1);
}
