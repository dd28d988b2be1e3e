/* Row-major weights to the packed layout of gemv_f32.h, lstm_f32.h and gru_f32.h, and float32 to 16-bit floats. Runs at
 * construction only. */
#include "pack.h"

#include "exp2_f32.h"
#include "gemv_f32.h"
#include "lstm_f32.h"

size_t tf_packed_floats(int32_t rows, int32_t k) { return (size_t)(rows + 15) / 16 * 16 * (size_t)k; }

void tf_pack_f32(const float *w, int32_t rows, int32_t k, int32_t stride, float *packed) {
    const int32_t groups = (rows + 15) / 16;
    for (int32_t first = 0; first < groups;) {
        const int32_t width = tf_panel_groups(groups - first);
        for (int32_t column = 0; column < k; column++)
            for (int32_t lane = 0; lane < width * 16; lane++) {
                const int32_t row = first * 16 + lane;
                *packed++ = row < rows ? w[(size_t)row * (size_t)stride + (size_t)column] : 0.0f;
            }
        first += width;
    }
}

/* Where a padded row of a gated layer comes from: its gate, and its unit (padding when >= hidden). */
typedef struct origin {
    int32_t gate, unit;
} origin;

static origin lstm_origin(int32_t group, int32_t lane, int32_t blocks) {
    (void)blocks;
    return (origin){group % 4, group / 4 * 16 + lane};
}

static origin gru_origin(int32_t group, int32_t lane, int32_t blocks) {
    return (origin){group / blocks, group % blocks * 16 + lane};
}

/* Gate 2 is the tanh of either layer; see lstm_f32.h and gru_f32.h for the factors. */
static void pack_gates(const float *w, int32_t hidden, int32_t k, int32_t gates,
                       origin (*from)(int32_t, int32_t, int32_t), float *packed) {
    const int32_t blocks = (hidden + 15) / 16, groups = gates * blocks;
    for (int32_t first = 0; first < groups;) {
        const int32_t width = tf_panel_groups(groups - first);
        for (int32_t column = 0; column < k; column++)
            for (int32_t lane = 0; lane < width * 16; lane++) {
                const origin o = from(first + lane / 16, lane % 16, blocks);
                const double scale = o.gate == 2 ? 2.0 * TF_LOG2E : -TF_LOG2E;
                const size_t row = (size_t)o.gate * (size_t)hidden + (size_t)o.unit;
                *packed++ = o.unit < hidden ? (float)(scale * (double)w[row * (size_t)k + (size_t)column]) : 0.0f;
            }
        first += width;
    }
}

void tf_pack_lstm_f32(const float *w, int32_t hidden, int32_t k, float *packed) {
    pack_gates(w, hidden, k, 4, lstm_origin, packed);
}

void tf_pack_gru_f32(const float *w, int32_t hidden, int32_t k, float *packed) {
    pack_gates(w, hidden, k, 3, gru_origin, packed);
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Nearest even throughout: a carry out of the mantissa raises the exponent, up to infinity; NaN becomes the quiet NaN.
 * */
uint16_t tf_f16_from_f32(float value) {
    const uint32_t bits = bits_of(value), magnitude = bits & UINT32_C(0x7FFFFFFF);
    const uint32_t sign = bits >> 16 & 0x8000u;
    if (magnitude > UINT32_C(0x7F800000)) return (uint16_t)(sign | 0x7E00u);
    if (magnitude >= UINT32_C(0x477FF000)) return (uint16_t)(sign | 0x7C00u); /* 65520 and above */
    uint32_t mantissa, shift, half;
    if (magnitude >= UINT32_C(0x38800000)) { /* 2^-14: normal */
        mantissa = magnitude - (UINT32_C(112) << 23);
        shift = 13;
    } else {
        const uint32_t exponent = magnitude >> 23;
        if (exponent < 102) return (uint16_t)sign; /* below 2^-25: less than half of the least denormal */
        mantissa = (magnitude & UINT32_C(0x7FFFFF)) | UINT32_C(0x800000);
        shift = 126 - exponent;
    }
    half = mantissa >> shift;
    const uint32_t rest = mantissa & ((UINT32_C(1) << shift) - 1), middle = UINT32_C(1) << (shift - 1);
    half += rest > middle || (rest == middle && (half & 1u));
    return (uint16_t)(sign | half);
}

uint16_t tf_bf16_from_f32(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & UINT32_C(0x7FFFFFFF)) > UINT32_C(0x7F800000)) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + UINT32_C(0x7FFF) + (bits >> 16 & 1u)) >> 16);
}

int tf_pack_f16(const float *packed, size_t n, uint16_t *out) {
    int finite = 1;
    for (size_t i = 0; i < n; i++) {
        out[i] = tf_f16_from_f32(packed[i]);
        finite &= (out[i] & 0x7C00u) != 0x7C00u;
    }
    return finite;
}

int tf_pack_bf16(const float *packed, size_t n, uint16_t *out) {
    int finite = 1;
    for (size_t i = 0; i < n; i++) {
        out[i] = tf_bf16_from_f32(packed[i]);
        finite &= (out[i] & 0x7F80u) != 0x7F80u;
    }
    return finite;
}
