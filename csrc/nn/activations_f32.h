/* Activations of a dense layer, element by element over n floats; y may be x; no alignment, no padding needed.
 *
 *     relu     max(0, x); NaN and -0 stay as they are
 *     sigmoid  1 / (1 + e^-x)
 *     tanh     (e^2x - 1) / (e^2x + 1), 2x clamped to +-28 (beyond, tanh rounds to +-1)
 *     softmax  e^(x_j - m) / sum, m = max x; one NaN or +inf makes every output NaN, as IEEE arithmetic has it
 *
 * Unlike a gate, whose weights carry the factor log2(e), these start from a plain x. Rounding x log2(e) would cost a
 * relative error of |x| 2^-24 in the exponential, so x is first reduced by n ln 2 in two parts (Cody & Waite 1980):
 *
 *     n = round(x log2 e),  r = (x - n LN2_HIGH) - n LN2_LOW,  f = r log2 e,
 *
 * where LN2_HIGH has 10 bits, so that the first product and difference are exact. The rest is exp2_f32.h. Arguments are
 * clamped to +-87, inside the normal range of float32: below, the result is 1.6e-38 instead of a smaller number.
 * Sums of softmax run in 16 fixed lanes, folded 8, 4, 2, 1, so AVX2 and AVX-512 give the same bits. */
#ifndef TF_NN_ACTIVATIONS_F32_H
#define TF_NN_ACTIVATIONS_F32_H

#include "exp2_f32.h"
#include "kernels.h"

#include <math.h>

#define TF_LN2_HIGH 0.693359375f
#define TF_LN2_LOW (-2.12194440e-4f)
#define TF_EXP_LIMIT 87.0f
#define TF_TANH_LIMIT 28.0f

/* Sum of 16 lanes in the order 8, 4, 2, 1. */
static inline float tf_fold_f32(float *lanes) {
    for (int width = 8; width >= 1; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

#endif
