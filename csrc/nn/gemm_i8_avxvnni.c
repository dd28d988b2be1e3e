#include <immintrin.h>

#define TF_I32 __m256i
#define TF_F32 __m256
#define TF_LANES 8
#define TF_ROWS 3
#define TF_EACH(M) M(0) M(1) M(2)
/* As in gemm_i8_avx512vnni.c, in the encoding that needs no AVX-512. */
#define TF_DOT(sum, q, w) __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(q), "x"(w))
#define TF_SET1(x) _mm256_set1_epi32(x)
#define TF_ZERO _mm256_setzero_si256()
#define TF_LOAD_I32(p) _mm256_loadu_si256((const __m256i *)(p))
#define TF_LOAD_F32(p) _mm256_loadu_ps(p)
#define TF_STORE_F32(p, x) _mm256_storeu_ps(p, x)
#define TF_FLOAT(x) _mm256_cvtepi32_ps(x)
#define TF_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define TF_SET1_F32(x) _mm256_set1_ps(x)
#define TF_NAME(dtype) tf_gemm_##dtype##_avxvnni
#include "gemm_i8_dot.h"
