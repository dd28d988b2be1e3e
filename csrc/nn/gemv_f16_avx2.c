#include "gemv_f16_avx2.h"

void tf_gemv_f16_avx2(const uint16_t *w, const float *x, const float *base, float *z, int32_t rows, int32_t k) {
    tf_gemv_panels_avx2(w, x, base, z, rows, k);
}
