#include "rope_f32.h"

void tf_rope_f32_scalar(const float *x, const float *cos_sin, float *y, int32_t heads, int32_t dim,
                        int32_t interleaved) {
    const int32_t half = dim / 2, step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
    for (int32_t head = 0; head < heads; head++, x += dim, y += dim)
        for (int32_t i = 0; i < half; i++) {
            const float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
            const float a = x[step * i], b = x[step * i + apart];
            y[step * i] = a * c - b * s;
            y[step * i + apart] = b * c + a * s;
        }
}
