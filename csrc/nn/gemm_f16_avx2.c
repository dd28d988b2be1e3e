#define TF_WEIGHT uint16_t
#define TF_LOAD8(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define TF_GEMM tf_gemm_f16_avx2
#include "gemm_avx2.h"
