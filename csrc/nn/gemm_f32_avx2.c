#define TF_WEIGHT float
#define TF_LOAD8(p) _mm256_loadu_ps(p)
#define TF_GEMM tf_gemm_f32_avx2
#include "gemm_avx2.h"
