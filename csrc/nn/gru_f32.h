/* One step of a GRU layer, cut in two as the LSTM's (lstm_f32.h).
 *
 *     prepare   zh = R h + rbias                                       (gemv, after the signal has left)
 *     finish    zx = W x + bias
 *               r = sigma(zx_r + zh_r),  u = sigma(zx_z + zh_z)        (update gate z, here u)
 *               n = tanh(zx_n + r zh_n)                                (gru_gates: reset after R_n; Cho et al. 2014 as
 *                                                                       in cuDNN and PyTorch)
 *               h' = (1 - u) n + u h
 *
 * The older form resets before R_n: rh = r h (gru_reset), then zh_n = R_n rh + rbias_n, which the caller multiplies out
 * on the critical path, then n = tanh(zx_n + zh_n) (gru_late). gru_reset reads only the r part of zx and zh.
 *
 * Layout: zx and zh are [3][16 * blocks], gates r, z, n, each padded to whole groups of 16 units; the weights are three
 * such parts in one gemv of 48 * blocks rows (tf_pack_gru_f32). Packing scales the rows of r and z by -log2(e) and of n
 * by 2 log2(e), biases included, so that the sums are exponents of two already. 16-bit weights are packed with the
 * factors -1 and 2, biases as well, so that they stay the model's own numbers (lstm_f32.h says why), and zx and zh are
 * multiplied by log2(e) in float32 as soon as they are made (TF_TAIL_LOG2E of plan.h), before the gates:
 *
 *     r = 1 / (1 + 2^(zx_r + zh_r)),   U = 2^(zx_z + zh_z),   N = 2^(zx_n + r zh_n)
 *     h' = (U (N - 1) + h (N + 1)) / ((U + 1) (N + 1))
 *
 * The exponents of U and N are clamped to +-40, which costs at most 2^-40 absolute and keeps the products finite; that
 * of r to +-126, because r multiplies zh_n, which has no bound. NaN passes. A lane whose weights are zero (padding)
 * halves h at each step and is never read as an input. */
#ifndef TF_NN_GRU_F32_H
#define TF_NN_GRU_F32_H

#include "kernels.h"

#endif
