#include "exact_i8.h"
#include "gemv_i8.h"

/* sum [16 groups] += W q over one panel; unsigned, so that partial sums may wrap (gemv_i8.h). */
static inline void panel(const int8_t *w, const uint8_t *q, uint32_t *sum, int32_t k, const int groups) {
    for (int32_t i = 0; i < k; i += 4, w += groups * 64)
        for (int j = 0; j < groups * 16; j++)
            sum[j] += (uint32_t)(w[4 * j] * q[i] + w[4 * j + 1] * q[i + 1] + w[4 * j + 2] * q[i + 2] +
                                 w[4 * j + 3] * q[i + 3]);
}

static void panel_any(const int8_t *w, const uint8_t *q, uint32_t *sum, int32_t k, int32_t groups) {
    switch (groups) {
    case 8: panel(w, q, sum, k, 8); break;
    case 4: panel(w, q, sum, k, 4); break;
    case 2: panel(w, q, sum, k, 2); break;
    default: panel(w, q, sum, k, 1); break;
    }
}

void tf_gemv_i8_scalar(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                       float *z, int32_t rows, int32_t k) {
    uint32_t sum[128];
    for (int32_t left = (rows + 15) / 16, groups; left > 0; left -= groups) {
        groups = tf_panel_groups(left);
        for (int j = 0; j < groups * 16; j++) sum[j] = (uint32_t)corr[j];
        panel_any(w, q, sum, k, groups);
        for (int j = 0; j < groups * 16; j++) z[j] = tf_fma_exact(scale[j], (float)(int32_t)sum[j], base[j]);
        w += (size_t)groups * 16 * (size_t)tf_up4(k);
        scale += groups * 16, corr += groups * 16, base += groups * 16, z += groups * 16;
    }
}

void tf_gemv_i8a16_scalar(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                          float *z, int32_t rows, int32_t k) {
    uint32_t high[128], low[128];
    for (int32_t left = (rows + 15) / 16, groups; left > 0; left -= groups) {
        groups = tf_panel_groups(left);
        for (int j = 0; j < groups * 16; j++) high[j] = (uint32_t)corr[j], low[j] = 0;
        panel_any(w, q, high, k, groups);
        panel_any(w, q + tf_plane_i8a16(k), low, k, groups);
        for (int j = 0; j < groups * 16; j++) {
            const float sum = tf_fma_exact(256.0f, (float)(int32_t)high[j], (float)(int32_t)low[j]);
            z[j] = tf_fma_exact(scale[j], sum, base[j]);
        }
        w += (size_t)groups * 16 * (size_t)tf_up4(k);
        scale += groups * 16, corr += groups * 16, base += groups * 16, z += groups * 16;
    }
}

void tf_dense_i8_scalar(const int8_t *w, const uint8_t *q, const float *scale, const int32_t *corr, const float *base,
                        const float *add, float *y, uint8_t *yq, float inverse, int32_t *nan, int32_t rows, int32_t k,
                        int32_t relu) {
    float z[128];
    for (int32_t left = rows; left > 0;) {
        const int32_t groups = tf_panel_groups((left + 15) / 16), lanes = groups * 16,
                      count = left < lanes ? left : lanes;
        tf_gemv_i8_scalar(w, q, scale, corr, base, z, lanes, k);
        for (int j = 0; j < lanes; j++) {
            if (relu & 1) z[j] = z[j] < 0.0f ? 0.0f : z[j];
            if (add) z[j] += add[j];
            if (relu & 2) z[j] = z[j] < 0.0f ? 0.0f : z[j];
            if (y) y[j] = z[j];
        }
        if (yq) tf_quantize_i8_scalar(z, yq, inverse, count, nan);
        w += (size_t)lanes * (size_t)tf_up4(k);
        scale += lanes, corr += lanes, base += lanes, left -= lanes;
        if (add) add += lanes;
        if (y) y += lanes;
        if (yq) yq += lanes;
    }
}
