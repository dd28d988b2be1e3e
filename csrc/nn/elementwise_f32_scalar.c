#include "elementwise_f32.h"

void tf_add_f32_scalar(const float *a, const float *b, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void tf_mul_f32_scalar(const float *a, const float *b, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

void tf_max_f32_scalar(const float *a, const float *b, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] = a[i] > b[i] || a[i] != a[i] ? a[i] : b[i];
}

void tf_tap_f32_scalar(const float *w, const float *x, const float *base, float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] = base[i] + w[i] * x[i];
}

void tf_scale_f32_scalar(const float *x, float *y, float a, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] = a * x[i];
}
