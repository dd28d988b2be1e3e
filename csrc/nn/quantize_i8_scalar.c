#include "exact_i8.h"
#include "gemv_i8.h"

/* v of gemv_i8.h; *nan |= 1 for NaN. */
static inline int32_t quantum(float x, float inverse, float low, float high, int32_t *nan) {
    const float v = x * inverse;
    if (v != v) {
        *nan |= 1;
        return 0;
    }
    return tf_round_exact(tf_clamp_f32(v, low, high));
}

void tf_quantize_i8_scalar(const float *x, uint8_t *q, float inverse, int32_t n, int32_t *nan) {
    for (int32_t i = 0; i < n; i++) q[i] = (uint8_t)(quantum(x[i], inverse, -128.0f, 127.0f, nan) + 128);
    for (int32_t i = n; i % 16 != 0; i++) q[i] = 128;
}

void tf_quantize_i8a16_scalar(const float *x, uint8_t *q, float inverse, int32_t n, int32_t *nan) {
    uint8_t *low = q + tf_plane_i8a16(n);
    for (int32_t i = 0; i < n; i++) {
        const int32_t value = quantum(x[i], inverse, -32767.0f, 32767.0f, nan) + 32768;
        q[i] = (uint8_t)(value >> 8);
        low[i] = (uint8_t)value;
    }
    for (int32_t i = n; i % 16 != 0; i++) q[i] = 128, low[i] = 0;
}
