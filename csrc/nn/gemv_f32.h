/* z = base + W x for packed float32 weights: the product under every layer.
 *
 * Layout (the same on every instruction set). Rows are padded to groups of 16; groups are gathered greedily into panels of
 * R = 8, 4, 2 and 1 groups, and a panel is stored as [k][R][16], so one broadcast of x[k] feeds R full vectors and the
 * weights are read once, in order. A panel starts at (first group) * 16 * k floats. A 512-bit unit needs about 8
 * independent sums in flight to hide the latency of FMA, so a panel of R groups keeps S = 8 / R partial sums of each row:
 * sum s takes the columns k with k mod S = s, sum 0 starts from `base`, and they are added pairwise,
 * ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)).
 *
 * The order of additions is thus fixed by the layout, and AVX2 and AVX-512 give the same bits. The scalar file has the
 * same order without fused multiply-add, so its last bits differ.
 *
 * Sums run in float32: error <= (k + 4) 2^-24 (|base| + sum |w x|), far below the tolerance of the models; a wider
 * accumulator would halve the speed. NaN and infinity pass through as IEEE arithmetic has them. Rows beyond `rows` in the
 * last group hold zero weights; `base` and `z` have room for 16 * ceil(rows / 16) floats. No alignment is needed, 64
 * bytes is fastest. `z` may be `base`; neither may overlap `x` or `w`. */
#ifndef TF_NN_GEMV_F32_H
#define TF_NN_GEMV_F32_H

#include "kernels.h"

/* Groups of 16 rows in the panel that starts when `left` groups remain. */
static inline int32_t tf_panel_groups(int32_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

#endif
