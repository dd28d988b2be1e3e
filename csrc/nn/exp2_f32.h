/* 2^z in float32, the base of every gate and activation, and its portable form.
 *
 * z = n + f with n = round(z) (by adding and removing 1.5 * 2^23) and |f| <= 1/2. Then 2^f = 1 + f q(f), where q is the
 * degree-5 minimax polynomial of (2^f - 1) / f on [-1/2, 1/2] in relative error (1.1e-8 before float32 rounding), and
 * with s = 2^n set by its exponent bits
 *
 *     2^z = fma(s, f q, s),   2^z - 1 = fma(s, f q, s - 1),   2^z + 1 = fma(s, f q, s + 1).
 *
 * The middle form keeps its relative accuracy as z -> 0 (s = 1, the subtraction is exact), so tanh(x) =
 * (2^z - 1) / (2^z + 1), z = 2 x log2(e), is accurate for small x as well, where 1 - exp(-2x) would cancel.
 * Relative error: 1.6 * 2^-24 for 2^z and 3.1 * 2^-24 for 2^z - 1, measured over every third float of 1e-10 <= |z| <=
 * 40; the worst are z = 1.50 and z = 0.5005, where |f| is about 1/2.
 *
 * z must lie in [-127, 127] or be NaN; n = -127 sets s = 0 and yields exactly 0. Callers clamp first, in an order that
 * lets NaN through: a comparison with NaN is false, and the x86 min and max return their SECOND operand when either is
 * NaN, so the bound stands first. A NaN in z makes f NaN and with it the result. Clamping the exponents of one product
 * to +-40 keeps the product of three (at most 2^120) finite, at an absolute error of 2^-40 in a sigmoid or tanh. */
#ifndef TF_NN_EXP2_F32_H
#define TF_NN_EXP2_F32_H

#include <stdint.h>
#include <string.h>

#define TF_LOG2E 1.4426950408889634
#define TF_EXP2_MAGIC 12582912.0f
#define TF_EXP2_ONE 0x3F800000
#define TF_EXP2_LIMIT 40.0f
#define TF_EXP2_LOWEST (-126.0f)
#define TF_EXP2_ZERO (-127.0f) /* 2^z becomes exactly 0 here */
#define TF_EXP2_Q0 0.693147182f
#define TF_EXP2_Q1 0.240226492f
#define TF_EXP2_Q2 0.0555035733f
#define TF_EXP2_Q3 0.00961823761f
#define TF_EXP2_Q4 0.00133907353f
#define TF_EXP2_Q5 0.000154035122f

typedef struct tf_exp2_f32 {
    float s; /* 2^round(z) */
    float r; /* s (2^f - 1); 2^z = s + r */
} tf_exp2_f32;

static inline float tf_clamp_f32(float z, float low, float high) {
    z = z > high ? high : z;
    return z < low ? low : z;
}

static inline tf_exp2_f32 tf_exp2_scalar(float z) {
    const float t = z + TF_EXP2_MAGIC;
    const float f = z - (t - TF_EXP2_MAGIC);
    float q = TF_EXP2_Q5;
    q = q * f + TF_EXP2_Q4;
    q = q * f + TF_EXP2_Q3;
    q = q * f + TF_EXP2_Q2;
    q = q * f + TF_EXP2_Q1;
    q = q * f + TF_EXP2_Q0;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits << 23) + TF_EXP2_ONE;
    tf_exp2_f32 e;
    memcpy(&e.s, &bits, sizeof bits);
    e.r = e.s * (f * q);
    return e;
}

#endif
