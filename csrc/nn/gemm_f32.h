/* z_s = base_s + W x_s for n sessions s at once: the product under every layer of a batch.
 *
 * The weights are packed as for gemv (gemv_f32.h; gemv_i8.h for int8) and every row of every session is summed in the
 * same order as gemv sums it, so a batch gives the bits of single steps on the same instruction set. What changes is
 * how often a weight is fetched: gemv spends one load on each multiply-add and so runs at the speed of the cache; here
 * a load serves a block of sessions and the multiply-adds become the limit.
 *
 * The register block is four vectors of sums times S sessions. In a panel of R groups the 8 vectors of one turn are
 * (column mod S', group) pairs, S' = 8 / R partial sums; "half" q of them is
 *
 *     R = 8    groups 4 q .. 4 q + 3                     one column a turn
 *     R = 4    groups 2 q, 2 q + 1, both partial sums    two columns
 *     R = 2    group q, its four partial sums            four columns
 *     R = 1    partial sums 4 q .. 4 q + 3 of the group  eight columns; the halves meet at the end
 *
 * AVX-512 has 32 registers: S = 6 takes 24 sums, four weights and a broadcast. AVX2 has 16: S = 3 takes 12 sums (of
 * eight lanes, so every half is walked twice), three broadcasts and a weight. What is left of n goes in blocks of 3, 2
 * and 1. Half a panel is the outer loop, so its weights stay in the first-level cache over all sessions while k is
 * small.
 *
 * `z[s]` may be `base[s]`; all `base` may be the same row; no z[s] may overlap another's rows, an x or w. Sizes as for
 * gemv. n may be 0. */
#ifndef TF_NN_GEMM_F32_H
#define TF_NN_GEMM_F32_H

#include "gemv_f32.h"

#endif
