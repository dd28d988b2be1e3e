#include "gemm_i8.h"

void tf_gemm_i8_scalar(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                       const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k) {
    for (int32_t s = 0; s < n; s++) tf_gemv_i8_scalar(w, q[s], scale, corr, base[s], z[s], rows, k);
}

void tf_gemm_i8a16_scalar(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                          const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k) {
    for (int32_t s = 0; s < n; s++) tf_gemv_i8a16_scalar(w, q[s], scale, corr, base[s], z[s], rows, k);
}
