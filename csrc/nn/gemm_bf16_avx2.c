/* A bfloat16 is the upper half of a float32. */
#define TF_WEIGHT uint16_t
#define TF_LOAD8(p)                                                                                                    \
    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p))), 16))
#define TF_GEMM tf_gemm_bf16_avx2
#include "gemm_avx2.h"
