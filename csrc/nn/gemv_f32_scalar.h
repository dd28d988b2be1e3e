/* Panels of f32 weights; see gemv_f32.h. */
#ifndef TF_NN_GEMV_F32_SCALAR_H
#define TF_NN_GEMV_F32_SCALAR_H

#define TF_WEIGHT float
#define TF_WIDEN(weight) (weight)
#include "gemv_scalar.h"

#endif
