/* Normalisation of a row of n floats.
 *
 *     layernorm   y = gamma (x - mean) / sqrt(variance + eps) + beta        (Ba, Kiros & Hinton 2016; variance over n)
 *     rmsnorm     y = gamma x / sqrt(mean of x^2 + eps) + beta              (Zhang & Sennrich 2019)
 *
 * `beta` may be NULL: nothing is added. y may be x.
 *
 * Variance in two passes over shifted data: d = x - x[0], m = mean d, then the mean of (d - m)^2. The shift is exact
 * for neighbouring values, so a row of prices (65,000 +- 0.01) keeps all the digits it has, where sums of x and x^2
 * would keep none; and it never hurts, because |x[0] - mean| <= sqrt(n) standard deviations, so that the rounding of d
 * is small beside the deviation by which it is divided. Sums run in 64 lanes (lanes_f32.h); AVX2 and AVX-512 give the
 * same bits.
 *
 * NaN in x makes the row NaN, and so does infinity in layernorm. A spread beyond 1e19 overflows the squares: the result
 * is then beta (a finite value over infinity), and NaN where a difference itself overflows. */
#ifndef TF_NN_NORM_F32_H
#define TF_NN_NORM_F32_H

#include "kernels.h"
#include "lanes_f32.h"

#endif
