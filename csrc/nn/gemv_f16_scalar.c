#include "gemv_f16_scalar.h"

void tf_gemv_f16_scalar(const uint16_t *w, const float *x, const float *base, float *z, int32_t rows, int32_t k) {
    tf_gemv_panels_scalar(w, x, base, z, rows, k);
}
