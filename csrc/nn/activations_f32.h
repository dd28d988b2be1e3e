/* Activations of a dense layer, element by element over n floats; y may be x; no alignment, no padding needed.
 *
 *     relu     max(0, x); NaN and -0 stay as they are
 *     sigmoid  1 / (1 + e^-x)
 *     tanh     (e^2x - 1) / (e^2x + 1), 2x clamped to +-28 (beyond, tanh rounds to +-1)
 *     softmax  e^(x_j - m) / sum, m = max x; one NaN or +inf makes every output NaN, as IEEE arithmetic has it
 *     silu     x / (1 + e^-x)                                               (Elfwing, Uchibe & Doya 2018)
 *     gelu     x Phi(x), Phi the normal distribution function                (Hendrycks & Gimpel 2016)
 *     gelu_tanh  its approximation x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
 *     leaky_relu  x or, where x <= 0, slope x
 *
 * Unlike a gate, whose weights carry the factor log2(e), these start from a plain x. Rounding x log2(e) would cost a
 * relative error of |x| 2^-24 in the exponential, so x is first reduced by n ln 2 in two parts (Cody & Waite 1980):
 *
 *     n = round(x log2 e),  r = (x - n LN2_HIGH) - n LN2_LOW,  f = r log2 e,
 *
 * where LN2_HIGH has 10 bits, so that the first product and difference are exact. The rest is exp2_f32.h. Arguments are
 * clamped to +-87, inside the normal range of float32: below, the result is 1.6e-38 instead of a smaller number.
 *
 * gelu: with a = |x|, the upper tail of the normal distribution is c(a) = erfc(a / sqrt 2) / 2 = 2^(g(a) - a^2 log2(e)
 * / 2), where g = log2 of the scaled tail is smooth: -1 at 0, about -log2(a) beyond. g is a polynomial of degree 10 in
 * a on [0, 6] (ours: Lawson's iteration on 3,000 Chebyshev points in 40 digits, weighted by c + 0.002; 5.5e-9 in c
 * before float32 rounding) and its value at 6 beyond, where c < 1e-9. Then x Phi(x) = x (1 - c) for x > 0 and x c
 * below; the rounding of the exponent is weighted by c, so that it stays harmless. Worst error in float32: see the
 * `smooth` class of kernels.def. x is bounded from below by -16 (gelu) and -87 (silu) in the product, so that -inf
 * gives 0, not NaN.
 *
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
#define TF_GELU_LOWEST (-16.0f)
#define TF_GELU_END 6.0f
#define TF_GELU_SQUARE (-0.721347520f) /* -log2(e) / 2 */
#define TF_GELU_G0 (-1.0f)
#define TF_GELU_G1 (-1.15110517f)
#define TF_GELU_G2 0.262135208f
#define TF_GELU_G3 (-0.0524683371f)
#define TF_GELU_G4 0.00698915636f
#define TF_GELU_G5 (-3.67700486e-05f)
#define TF_GELU_G6 (-0.000260711065f)
#define TF_GELU_G7 7.05594284e-05f
#define TF_GELU_G8 (-9.8842238e-06f)
#define TF_GELU_G9 7.51172024e-07f
#define TF_GELU_G10 (-2.43805065e-08f)
#define TF_GELU_TANH1 (-2.30220820f)  /* -2 log2(e) sqrt(2 / pi) */
#define TF_GELU_TANH3 (-0.102943240f) /* 0.044715 times that */

/* Sum of 16 lanes in the order 8, 4, 2, 1. */
static inline float tf_fold_f32(float *lanes) {
    for (int width = 8; width >= 1; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

#endif
