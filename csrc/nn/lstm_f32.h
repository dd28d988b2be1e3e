/* One step of an LSTM layer, cut in two so that the trader waits only for what needs the new input.
 *
 *     prepare   pre = b + R h                                        (gemv_f32, after the signal has left)
 *     finish    z = pre + W x,  i = sigma(z_i), f = sigma(z_f), g = tanh(z_g), o = sigma(z_o)
 *               c' = f c + i g,  h' = o tanh(c')                     (Hochreiter & Schmidhuber 1997, with forget gate)
 *
 * Layout: units in blocks of 16, each block four groups of 16 rows (i, f, g, o), so the four gates of a unit end up in
 * the same lane of neighbouring vectors and are finished in registers. Two blocks make a panel of gemv_f32.h, a last
 * odd block a panel of four groups. Packing scales the rows of i, f, o by -log2(e) and of g by 2 log2(e) (float32 and
 * int8; 16-bit weights: see below), so that z is already the exponent of a power of two:
 *
 *     E = 2^z_i + 1, F = 2^z_f + 1, G = 2^z_g + 1, N = 2^z_g - 1, O = 2^z_o + 1
 *     c' = (c E G + N F) / (F E G)         one division for three gates
 *     h' = (2^y - 1) / (O (2^y + 1)),      y = 2 log2(e) c'
 *
 * z and y are clamped to +-40 first: without it F E G overflows to infinity and the quotient is NaN. Clamping costs at
 * most 2^-40 absolute; NaN passes the clamps (exp2_f32.h).
 *
 * 16-bit weights are packed with the factors -1 and 2 only, which both formats hold exactly, and lstm_finish_f16 and
 * lstm_finish_bf16 multiply z, W x and pre together, by log2(e) once, in float32, before the gates. With log2(e) in the
 * weights they would be rounded to 8 or 11 bits a second time, at other places than the model's own weights: another
 * model, whose answers differ by up to 2e-3 (bf16) where float32 arithmetic on the right weights differs by 1e-6. So
 * lstm_finish_f16 = gemv_f16, scale_f32 by log2(e), lstm_gates_f32, the same bits; batches do it in these three parts.
 *
 * `c` and `h` have room for 16 * blocks floats; lanes beyond H carry the padding rows, whose weights are zero, and are
 * never read as inputs. Worst error seen against float64: see the `gate` class of kernels.def. */
#ifndef TF_NN_LSTM_F32_H
#define TF_NN_LSTM_F32_H

#include "kernels.h"

#endif
