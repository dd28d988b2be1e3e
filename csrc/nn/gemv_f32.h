/* z = base + W x for packed float32, binary16 and bfloat16 weights: the product under every layer.
 *
 * Layout (the same on every instruction set). Rows are padded to groups of 16; groups are gathered greedily into panels
 * of R = 8, 4, 2 and 1 groups, and a panel is stored as [k][R][16], so one broadcast of x[k] feeds R full vectors and
 * the weights are read once, in order. A panel starts at (first group) * 16 * k floats. A 512-bit unit needs about 8
 * independent sums in flight to hide the latency of FMA, so a panel of R groups keeps S = 8 / R partial sums of each
 * row: sum s takes the columns k with k mod S = s, sum 0 starts from `base`, and they are added pairwise,
 * ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)).
 *
 * The order of additions is thus fixed by the layout, and AVX2 and AVX-512 give the same bits. The scalar file has the
 * same order without fused multiply-add, so its last bits differ.
 *
 * Sums run in float32: error <= (k + 4) 2^-24 (|base| + sum |w x|), far below the tolerance of the models; a wider
 * accumulator would halve the speed. NaN and infinity pass through as IEEE arithmetic has them. Rows beyond `rows` in
 * the last group hold zero weights; `base` and `z` have room for 16 * ceil(rows / 16) floats. No alignment is needed,
 * 64 bytes is fastest. `z` may be `base`; neither may overlap `x` or `w`.
 *
 * 16-bit weights (f16, bf16) lie in the same panels, half as many bytes; they are widened exactly on the way into the
 * multiply-add and everything else is the float32 kernel, so the sums have the bits of gemv_f32 on the widened weights.
 * Half the bytes is what they are for: models that do not fit into the cache in float32.
 *
 * Two faster instructions are left alone, for what they do to the answer:
 *   - Native binary16 arithmetic (AVX512-FP16) needs binary16 inputs and rounds every product. With sums flushed to
 *     float32 after 4 terms it doubles the error that rounding the weights has made (rms of 2,000 random rows, k = 64
 *     and 256, inputs in tanh range: 4.1e-4 and 4.3e-4 of the result's rms instead of 2.0e-4 and 2.1e-4), and an input
 *     above 65,504, a price for instance, becomes infinite, where float32 arithmetic stays at 2.1e-4.
 *   - vdpbf16ps (AVX512-BF16) rounds the inputs to 8 bits, which costs as much as rounding the weights did, flushes
 *     denormals, and needs pairs of columns side by side. With inputs split into two bfloat16 each it does no more
 *     products per instruction than vfmadd231ps, and saves only the shift and mask of widening, which run beside the
 *     multiply-adds. */
#ifndef TF_NN_GEMV_F32_H
#define TF_NN_GEMV_F32_H

#include "kernels.h"

/* Groups of 16 rows in the panel that starts when `left` groups remain. */
static inline int32_t tf_panel_groups(int32_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

#endif
