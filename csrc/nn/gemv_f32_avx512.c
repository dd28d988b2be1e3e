#include "gemv_f32_avx512.h"

void tf_gemv_f32_avx512(const float *w, const float *x, const float *base, float *z, int32_t rows, int32_t k) {
    tf_gemv_panels_avx512(w, x, base, z, rows, k);
}
