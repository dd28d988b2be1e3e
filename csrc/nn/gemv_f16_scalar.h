/* Panels of f16 weights; see gemv_f32.h. */
#ifndef TF_NN_GEMV_F16_SCALAR_H
#define TF_NN_GEMV_F16_SCALAR_H

#include "halves.h"

#define TF_WEIGHT uint16_t
#define TF_WIDEN(weight) tf_f32_from_f16(weight)
#include "gemv_scalar.h"

#endif
