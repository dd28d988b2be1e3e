/* Packing that only construction needs (the public part stands in tengri/nn.h). */
#ifndef TF_NN_PACK_H
#define TF_NN_PACK_H

#include "tengri/nn.h"

/* GRU weights w [3 * hidden][k], gates r, z, n, row major, to three parts of 16 * ceil(hidden / 16) rows each in the
 * layout of gemv_f32.h, scaled as gru_f32.h says: tf_packed_floats(48 * ceil(hidden / 16), k) floats. With k = 1 it
 * packs a bias. */
void tf_pack_gru_f32(const float *w, int32_t hidden, int32_t k, float *packed);

/* Packed float32 weights to 16-bit ones, nearest even. 1 when all results are finite, else 0. */
int tf_pack_f16(const float *packed, size_t n, uint16_t *out);
int tf_pack_bf16(const float *packed, size_t n, uint16_t *out);

#endif
