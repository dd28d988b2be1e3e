/* The panels of gemv_f32.h without vectors. A file includes this after TF_WEIGHT (the type of a weight) and TF_WIDEN
 * (to float32) say what it multiplies: gemv_f32_scalar.h, gemv_f16_scalar.h, gemv_bf16_scalar.h.
 *
 * S partial sums per row, as the vector files have them; the inner loop over lanes is what a compiler may vectorise. */
#ifndef TF_NN_GEMV_SCALAR_H
#define TF_NN_GEMV_SCALAR_H

#include "gemv_f32.h"

static inline void tf_panel_scalar(const TF_WEIGHT *w, const float *x, const float *base, float *z, int32_t k,
                                   const int groups) {
    const int sums = 8 / groups, lanes = groups * 16;
    float sum[128];
    for (int j = 0; j < 128; j++) sum[j] = j < lanes ? base[j] : 0.0f;
    int32_t i = 0;
    for (; i + sums <= k; i += sums)
        for (int s = 0; s < sums; s++, w += lanes) {
            const float v = x[i + s];
            for (int j = 0; j < lanes; j++) sum[s * lanes + j] += TF_WIDEN(w[j]) * v;
        }
    for (int s = 0; i < k; i++, s++, w += lanes)
        for (int j = 0; j < lanes; j++) sum[s * lanes + j] += TF_WIDEN(w[j]) * x[i];
    for (int step = 1; step < sums; step *= 2)
        for (int s = 0; s < sums; s += 2 * step)
            for (int j = 0; j < lanes; j++) sum[s * lanes + j] += sum[(s + step) * lanes + j];
    for (int j = 0; j < lanes; j++) z[j] = sum[j];
}

static inline void tf_gemv_panels_scalar(const TF_WEIGHT *w, const float *x, const float *base, float *z, int32_t rows,
                                         int32_t k) {
    for (int32_t left = (rows + 15) / 16; left > 0;) {
        const int32_t groups = tf_panel_groups(left);
        switch (groups) {
        case 8: tf_panel_scalar(w, x, base, z, k, 8); break;
        case 4: tf_panel_scalar(w, x, base, z, k, 4); break;
        case 2: tf_panel_scalar(w, x, base, z, k, 2); break;
        default: tf_panel_scalar(w, x, base, z, k, 1); break;
        }
        w += (size_t)groups * 16 * (size_t)k;
        base += groups * 16;
        z += groups * 16;
        left -= groups;
    }
}

#endif
