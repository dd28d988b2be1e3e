/* 16-bit floats as weights: IEEE binary16 (f16) and bfloat16 (bf16), stored as uint16_t, widened to float32 where they
 * are used. Widening is exact for every value, denormals and infinities included; NaN stays NaN. Rounding to them
 * (nearest even) is done once, when weights are packed: tf_f16_from_f32 and tf_bf16_from_f32 in pack.c. */
#ifndef TF_NN_HALVES_H
#define TF_NN_HALVES_H

#include <stdint.h>
#include <string.h>

static inline float tf_f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float tf_f32_from_bf16(uint16_t half) { return tf_f32_from_bits((uint32_t)half << 16); }

/* Selects instead of branches, so that a loop over it vectorises. A denormal is its mantissa times 2^-24. */
static inline float tf_f32_from_f16(uint16_t half) {
    const uint32_t magnitude = half & 0x7FFFu, sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t widened = (magnitude << 13) + (magnitude >= 0x7C00u ? UINT32_C(224) << 23 : UINT32_C(112) << 23);
    const float small = (float)(int32_t)magnitude * 0x1p-24f;
    uint32_t small_bits;
    memcpy(&small_bits, &small, sizeof small_bits);
    return tf_f32_from_bits(sign | (magnitude < 0x400u ? small_bits : widened));
}

#endif
