#define TF_WEIGHT float
#define TF_LOAD16(p) _mm512_loadu_ps(p)
#define TF_GEMM tf_gemm_f32_avx512
#include "gemm_avx512.h"
