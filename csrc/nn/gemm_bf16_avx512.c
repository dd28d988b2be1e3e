/* A bfloat16 is the upper half of a float32. */
#define TF_WEIGHT uint16_t
#define TF_LOAD16(p)                                                                                                   \
    _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))), 16))
#define TF_GEMM tf_gemm_bf16_avx512
#include "gemm_avx512.h"
