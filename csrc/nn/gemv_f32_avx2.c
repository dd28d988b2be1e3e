#include "gemv_f32_avx2.h"

void tf_gemv_f32_avx2(const float *w, const float *x, const float *base, float *z, int32_t rows, int32_t k) {
    tf_gemv_panels_avx2(w, x, base, z, rows, k);
}
