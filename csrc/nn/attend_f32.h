/* Attention of the newest row over a ring of the rows before it (Vaswani et al. 2017, with a sliding window):
 *
 *     z_s = bias_s + sum_d q_d k_ds,   p_s = 2^(z_s - max z),   y_j = (sum_s p_s v_sj) / (sum_s p_s)
 *
 * for each head, over all slots s of the ring; the order of the slots does not matter to the formula. Scores are in
 * units of log 2: the caller multiplies q by scale * log2(e) (or packs the factor into the weights that make q).
 *
 *     q     [heads][dim]
 *     k     [kv_heads][slots / 16][dim][16]: the new key goes to slot s as 16 apart floats, k[head][s / 16][d][s % 16]
 *     v     [slots][round_up(kv_heads * value_dim, 16)]
 *     bias  [heads][slots], in log 2 units: 0 for a slot that is seen, -slope * age * log2(e) for ALiBi, and
 *           TF_ATTEND_EMPTY for a slot that is empty or older than the window. One row per head, because the slopes of
 *           ALiBi are per head; the caller fills it while it prepares, and without ALiBi it does not change once the
 *           window is full. It starts the sums, so it costs one load per 16 scores.
 *     p     [heads][slots], scratch
 *     y     [heads][value_dim]
 *
 * `slots` is a multiple of 16, group = heads / kv_heads (head h reads keys and values h / group). At least one slot
 * must be seen by every head; keys and values of the others must be finite (zero, say). An exponent below -126.5 yields
 * exactly 0 (exp2_f32.h at n = -127), so an empty slot adds nothing at all.
 *
 * Order of sums, the same on every instruction set: z over d front to back; the sum of p in 16 lanes (lane s mod 16),
 * folded 8, 4, 2, 1; y_j in four sums (s mod 4), (0 + 1) + (2 + 3). AVX2 and AVX-512 give the same bits. A NaN in a
 * score makes the head's y NaN. */
#ifndef TF_NN_ATTEND_F32_H
#define TF_NN_ATTEND_F32_H

#include "exp2_f32.h"
#include "kernels.h"
#include "lanes_f32.h"

#define TF_ATTEND_EMPTY (-1e30f)

#endif
