/* Products of int8 weights: z = base + scale (corr + W q), and how rows of floats become q.
 *
 * Weights are int8 in [-127, 127] with a positive scale per row; a row of activations has one scale s. Quantised
 * activations are stored plus an offset as unsigned bytes, because the multiply-add of VNNI takes unsigned times
 * signed:
 *
 *     i8       v = clamp(round(x / s), -128, 127),       q = v + 128
 *     i8a16    v = clamp(round(x / s), -32767, 32767),   v + 32768 = 256 high + low, two planes of bytes, high first,
 *              the low plane round_up(k, 64) bytes behind it
 *
 * x / s is computed as x * inverse with inverse = 1 / s rounded to float32 (positive, finite), and the product,
 * rounded to float32, is rounded half to even. So a quotient within about 2^-23 of a tie may fall to the other side
 * than the exact division would put it: one quantum, at the point where both answers are equally far. All instruction
 * sets agree to the bit. NaN becomes v = 0 and is reported in a flag; infinities are clamped. The bytes up to
 * round_up(n, 16) behind the row hold v = 0.
 *
 * The offset is taken back by integers: corr = -128 sum of the row's weights is where its int32 sum starts, for i8a16
 * in the high plane (256 * 128 = 32768). Bound: any partial sum in any order lies within 128 * 127 k + 255 * 127 k in
 * modulus, and since 32-bit sums wrap, only the final ones must fit: 128 * 127 k and (low plane) 255 * 127 k below
 * 2^31, so k <= 66,311. TF_MOST_I8 = 65,536 columns are allowed; tf_packed_i8 returns 0 beyond. Every instruction set
 * thus has the same exact integers; the AVX2 and AVX-512 (BW) kernels widen to 16 bits, because the 8-bit multiply-add
 * of those sets saturates.
 *
 *     i8       z = fma(scale, float(sum), base)
 *     i8a16    z = fma(scale, fma(256, float(high), float(low)), base), where 256 high + low is the exact sum
 *
 * For k <= 518 both parts of i8a16 fit in 24 bits and the inner fma is the exact sum rounded once; beyond, each
 * conversion may cost 2^-24 of its part, which is far below the quantum of the activations. An int32 could not hold
 * the combined sum from k = 517 on.
 *
 * Each step is a correctly rounded IEEE operation, so z has the same bits on every instruction set.
 *
 * Layout: panels of R groups of 16 rows as in gemv_f32.h, four columns together: [ceil(k / 4)][R][16][4] bytes; a
 * panel starts at (first group) * 16 * round_up(k, 4) bytes. Rows beyond `rows` and columns beyond k hold zero
 * weights. `scale`, `corr`, `base` and `z` have room for round_up(rows, 16) elements, `q` for round_up(k, 4) bytes a
 * plane. `z` may be `base`. No alignment is needed; 64 bytes is fastest.
 *
 * Fused rows, for chains in which the output of one product is the input of the next:
 *
 *     dense_i8         y = base + scale (corr + W q);  relu & 1: y = max(y, 0);  add: y += add;
 *                      relu & 2: y = max(y, 0);  yq = quantize_i8(y)
 *     lstm_fused_i8    lstm_finish_i8 that also writes hq = quantize_i8(h) (lstm_i8.h)
 *
 * dense_i8 has the same bits as gemv_i8, relu_f32, add_f32, relu_f32, quantize_i8 in turn. `add`, `y`, `yq` may be
 * NULL; `y` may be `base` or `add`; `add` and `y` have room for round_up(rows, 16) floats, `yq`, which may not overlap
 * `q`, for as many bytes. *nan is as in quantize_i8 and is only touched with yq. */
#ifndef TF_NN_GEMV_I8_H
#define TF_NN_GEMV_I8_H

#include "gemv_f32.h"

/* Four activations, for a broadcast. */
#if defined(__GNUC__)
typedef int32_t tf_four_bytes __attribute__((may_alias, aligned(1)));
#endif

enum { TF_MOST_I8 = 65536 };

static inline int32_t tf_up4(int32_t n) { return (n + 3) / 4 * 4; }
static inline size_t tf_plane_i8a16(int32_t k) { return (size_t)(k + 63) / 64 * 64; }

/* From packed weights of `rows` rows (LSTM: 64 * blocks): corr [round_up(rows, 16)]. */
void tf_corr_i8(const int8_t *packed, int32_t rows, int32_t k, int32_t *corr);
/* Scales of rows times the scale of the activations, in the order of tf_pack_i8 [round_up(rows, 16)] and of
 * tf_pack_lstm_i8 [64 * blocks], there with the factors -log2(e) and 2 log2(e) of lstm_f32.h. Padding rows get 0. */
void tf_scale_i8(const float *scale, float activation, int32_t rows, float *packed);
void tf_scale_lstm_i8(const float *scale, float activation, int32_t hidden, float *packed);

#endif
