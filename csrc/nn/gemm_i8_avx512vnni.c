#include <immintrin.h>

#define TF_I32 __m512i
#define TF_F32 __m512
#define TF_LANES 16
#define TF_ROWS 6
#define TF_EACH(M) M(0) M(1) M(2) M(3) M(4) M(5)
/* gcc 12 copies sums about when it is given the intrinsic; this halves the time. */
#define TF_DOT(sum, q, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(q), "v"(w))
#define TF_SET1(x) _mm512_set1_epi32(x)
#define TF_ZERO _mm512_setzero_si512()
#define TF_LOAD_I32(p) _mm512_loadu_si512(p)
#define TF_LOAD_F32(p) _mm512_loadu_ps(p)
#define TF_STORE_F32(p, x) _mm512_storeu_ps(p, x)
#define TF_FLOAT(x) _mm512_cvtepi32_ps(x)
#define TF_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define TF_SET1_F32(x) _mm512_set1_ps(x)
#define TF_NAME(dtype) tf_gemm_##dtype##_avx512vnni
#include "gemm_i8_dot.h"
