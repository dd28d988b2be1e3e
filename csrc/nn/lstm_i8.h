/* The LSTM step of lstm_f32.h with int8 weights, and its gates.
 *
 *     prepare   pre = b + R hq                    gemv_i8 with hq = quantize_i8(h)
 *     finish    z = pre + W q, gates              lstm_finish_i8 = gemv_i8, then lstm_gates_i8, the same bits
 *               hq = quantize_i8(h) as well       lstm_fused_i8 (`hq` NULL: not; *nan is touched only with hq)
 *
 * lstm_finish_i8a16 = gemv_i8a16, then lstm_gates_i8. Layout of the weights: tf_pack_lstm_i8, panels of gemv_i8.h over
 * the row order of lstm_f32.h; tf_scale_lstm_i8 and tf_corr_i8 give `scale` and `corr` [64 * blocks]. `hq` has room
 * for 16 * blocks bytes and may not overlap `q`. Padding lanes carry zero weights; with zero `pre` and zero start they
 * stay zero.
 *
 * Gates: formulas of lstm_f32.h, every step one correctly rounded IEEE operation in a fixed order (the scalar file
 * makes its fused multiply-adds with exact_i8.h), so an int8 network has the same bits on every instruction set. On
 * the critical path of a small layer the exponentials are most of the work, so they use a table of 16 roots of two,
 * which fits in one vector register (Tang 1989, "Table-driven implementation of the exponential function"):
 *
 *     t = z + 1.5 * 2^19 rounds z to sixteenths,  z = n + j / 16 + f,  |f| <= 1/32,  and its last bits are 16 n + j
 *     s = 2^(n + j/16) has the bits TABLE[j] + (t << 19), where TABLE[j] = bits of 2^(j/16), less j << 19
 *     p = 1 + f (q0 + q1 f), the minimax polynomial in relative error of 2^f with p(0) = 1
 *     2^z = s p,   E = fma(s, p, 1),   E - 2 = fma(s, p, -1)
 *
 * Eleven instructions with both clamps. Relative error of 2^z: 5.3e-7, of which a sigmoid keeps 1.3e-7 and tanh 2.6e-7
 * absolute (over z = +-40); 2^0 = 1 exactly, so zero stays zero. What this gives up against exp2_f32.h is the relative
 * accuracy of tanh near 0, a hundredth of the quantum of 16-bit activations. Clamps and NaN as in lstm_f32.h. */
#ifndef TF_NN_LSTM_I8_H
#define TF_NN_LSTM_I8_H

#include "exp2_f32.h"
#include "kernels.h"

#define TF_EXP2_I8_MAGIC 786432.0f
#define TF_EXP2_I8_Q0 0.6931877f
#define TF_EXP2_I8_Q1 0.24022643f

static const uint32_t TF_EXP2_I8_TABLE[16] = {
    0x3F800000, 0x3F7DAAC3, 0x3F7B95C2, 0x3F79C3D3, 0x3F7837F0, 0x3F76F532, 0x3F75FED7, 0x3F75583F,
    0x3F7504F3, 0x3F7508A4, 0x3F75672A, 0x3F76248C, 0x3F7744FD, 0x3F78CCDF, 0x3F7AC0C7, 0x3F7D257D,
};

#endif
