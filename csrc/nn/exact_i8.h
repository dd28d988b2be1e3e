/* Float arithmetic of the integer kernels in portable C, with the bits of a fused multiply-add everywhere.
 *
 * The integer kernels promise the same bits on every instruction set: their sums are exact, and what follows a sum is
 * a fixed chain of float32 operations, each correctly rounded by IEEE 754. Only the fused multiply-add is not part of
 * the baseline of x86-64, and fmaf() there is a slow call, so it is made from doubles: a b is exact in double (24 + 24
 * <= 53 bits); a b + c is rounded to odd (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums"),
 * that is, the error of the double sum (Knuth's TwoSum) decides whether an even last bit moves one step towards the
 * exact value; a value rounded to odd in 53 bits rounds to 24 bits (or to fewer, among the subnormals) as the exact
 * value would. Infinities and NaN make the error NaN, which leaves the sum alone. */
#ifndef TF_NN_EXACT_I8_H
#define TF_NN_EXACT_I8_H

#include "lstm_i8.h"

#include <math.h>

static inline float tf_fma_exact(float a, float b, float c) {
#ifdef FP_FAST_FMAF
    return fmaf(a, b, c);
#else
    const double product = (double)a * (double)b, addend = (double)c;
    double sum = product + addend;
    const double part = sum - product;
    const double error = (product - (sum - part)) + (addend - part);
    if (error < 0.0 || error > 0.0) {
        uint64_t bits;
        memcpy(&bits, &sum, sizeof bits);
        if ((bits & 1u) == 0) bits += (error > 0.0) == (sum > 0.0) ? (uint64_t)1 : (uint64_t)-1;
        memcpy(&sum, &bits, sizeof sum);
    }
    return (float)sum;
#endif
}

/* Round to the nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits behind the point. */
static inline int32_t tf_round_exact(float x) { return (int32_t)((x + TF_EXP2_MAGIC) - TF_EXP2_MAGIC); }

typedef struct tf_exp2_exact {
    float s, p; /* 2^z = s p */
} tf_exp2_exact;

/* 2^z as in lstm_i8.h; z in [-126, 127] or NaN. */
static inline tf_exp2_exact tf_exp2_of(float z) {
    const float t = z + TF_EXP2_I8_MAGIC;
    const float f = z - (t - TF_EXP2_I8_MAGIC);
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits << 19) + TF_EXP2_I8_TABLE[bits & 15u];
    tf_exp2_exact e;
    memcpy(&e.s, &bits, sizeof bits);
    e.p = tf_fma_exact(f, tf_fma_exact(TF_EXP2_I8_Q1, f, TF_EXP2_I8_Q0), 1.0f);
    return e;
}

#endif
