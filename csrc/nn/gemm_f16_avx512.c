#define TF_WEIGHT uint16_t
#define TF_LOAD16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define TF_GEMM tf_gemm_f16_avx512
#include "gemm_avx512.h"
