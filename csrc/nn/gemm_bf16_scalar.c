#include "gemm_f32.h"

void tf_gemm_bf16_scalar(const uint16_t *w, const float *const *x, const float *const *base, float *const *z, int32_t n,
                        int32_t rows, int32_t k) {
    for (int32_t s = 0; s < n; s++) tf_gemv_bf16_scalar(w, x[s], base[s], z[s], rows, k);
}
