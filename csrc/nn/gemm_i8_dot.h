/* gemm_i8.h for instruction sets with a four-byte dot product. The including file defines
 *
 *     TF_I32, TF_F32          vectors of TF_LANES (16 or 8) int32 and float
 *     TF_ROWS                 rows of bytes in a block, and TF_EACH(M) = M(0) .. M(TF_ROWS - 1)
 *     TF_DOT(sum, q, w)       sum += four unsigned bytes q times four signed bytes w, in each lane
 *     TF_SET1, TF_ZERO, TF_LOAD_I32, TF_LOAD_F32, TF_STORE_F32, TF_FLOAT, TF_FMA, TF_SET1_F32
 *     TF_NAME(dtype)          of the kernel
 *
 * Named sums, because gcc keeps them in registers where it spills arrays. */
#include "gemm_i8.h"

#define TF_INLINE static inline __attribute__((always_inline))

/* Sums of four neighbouring vectors for `count` rows of bytes, of which those from `low` on start from nothing instead
 * of from corr. Weights of a turn of four columns stand `step` bytes apart. vectors = 4, 2 or 1 of the four exist. */
TF_INLINE void dots(const int8_t *w, size_t step, const uint8_t *const *q, const int32_t *corr, int32_t k,
                    const int count, const int low, const int vectors, TF_I32 (*sums)[4]) {
    const TF_I32 ca = TF_LOAD_I32(corr), cb = vectors > 1 ? TF_LOAD_I32(corr + TF_LANES) : ca;
    const TF_I32 cc = vectors > 2 ? TF_LOAD_I32(corr + 2 * TF_LANES) : ca;
    const TF_I32 cd = vectors > 2 ? TF_LOAD_I32(corr + 3 * TF_LANES) : ca;
#define TF_START(s)                                                                                                    \
    const uint8_t *const q##s = q[s < count ? s : 0];                                                                  \
    TF_I32 a##s = s < low ? ca : TF_ZERO, b##s = s < low ? cb : TF_ZERO;                                               \
    TF_I32 c##s = s < low ? cc : TF_ZERO, d##s = s < low ? cd : TF_ZERO;
    TF_EACH(TF_START)
#undef TF_START
    for (int32_t i = 0; i < k; i += 4, w += step) {
        const TF_I32 wa = TF_LOAD_I32(w), wb = vectors > 1 ? TF_LOAD_I32(w + 4 * TF_LANES) : wa;
        const TF_I32 wc = vectors > 2 ? TF_LOAD_I32(w + 8 * TF_LANES) : wa;
        const TF_I32 wd = vectors > 2 ? TF_LOAD_I32(w + 12 * TF_LANES) : wa;
#define TF_TURN(s)                                                                                                     \
    if (s < count) {                                                                                                   \
        const TF_I32 v = TF_SET1(tf_load_four(q##s + i));                                                             \
        TF_DOT(a##s, v, wa);                                                                                           \
        if (vectors > 1) TF_DOT(b##s, v, wb);                                                                          \
        if (vectors > 2) TF_DOT(c##s, v, wc);                                                                          \
        if (vectors > 2) TF_DOT(d##s, v, wd);                                                                          \
    }
        TF_EACH(TF_TURN)
#undef TF_TURN
    }
#define TF_END(s)                                                                                                      \
    if (s < count) sums[s][0] = a##s, sums[s][1] = b##s, sums[s][2] = c##s, sums[s][3] = d##s;
    TF_EACH(TF_END)
#undef TF_END
}

TF_INLINE void block(const int8_t *w, size_t step, const uint8_t *const *q, const float *scale, const int32_t *corr,
                     const float *const *base, float *const *z, int32_t at, int32_t k, const int count,
                     const int planes, const int vectors) {
    TF_I32 sums[TF_ROWS][4];
    const uint8_t *bytes[TF_ROWS];
    const size_t plane = planes == 2 ? tf_plane_i8a16(k) : 0;
    for (int s = 0; s < count * planes; s++) bytes[s] = s < count ? q[s] : q[s - count] + plane;
    dots(w, step, bytes, corr, k, count * planes, count, vectors, sums);
#pragma GCC unroll 6
    for (int s = 0; s < count; s++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            TF_F32 sum = TF_FLOAT(sums[s][v]);
            if (planes == 2) sum = TF_FMA(TF_SET1_F32(256.0f), sum, TF_FLOAT(sums[s + count][v]));
            const int32_t row = at + v * TF_LANES;
            TF_STORE_F32(z[s] + row, TF_FMA(TF_LOAD_F32(scale + v * TF_LANES), sum, TF_LOAD_F32(base[s] + row)));
        }
}

/* `vectors` vectors of rows from `at` on, for all sessions. */
TF_INLINE void sweep(const int8_t *w, size_t step, const uint8_t *const *q, const float *scale, const int32_t *corr,
                     const float *const *base, float *const *z, int32_t n, int32_t at, int32_t k, const int planes,
                     const int vectors) {
    const int most = TF_ROWS / planes;
    for (; n >= most; n -= most, q += most, base += most, z += most)
        block(w, step, q, scale, corr, base, z, at, k, most, planes, vectors);
    if (most > 3 && n >= 3) {
        block(w, step, q, scale, corr, base, z, at, k, 3, planes, vectors);
        n -= 3, q += 3, base += 3, z += 3;
    }
    if (most > 2 && n == 2) block(w, step, q, scale, corr, base, z, at, k, 2, planes, vectors);
    if (most > 1 && n == 1) block(w, step, q, scale, corr, base, z, at, k, 1, planes, vectors);
}

TF_INLINE void gemm(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                    const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k, const int planes) {
    const int each = 16 / TF_LANES; /* vectors in a group */
    for (int32_t left = (rows + 15) / 16, at = 0, groups; left > 0; left -= groups) {
        groups = tf_panel_groups(left);
        const size_t step = (size_t)groups * 64;
        int32_t vectors = groups * each;
        const int8_t *part = w;
        for (; vectors >= 4; vectors -= 4, part += 16 * TF_LANES, at += 4 * TF_LANES)
            sweep(part, step, q, scale + at, corr + at, base, z, n, at, k, planes, 4);
        if (vectors == 2) sweep(part, step, q, scale + at, corr + at, base, z, n, at, k, planes, 2), at += 2 * TF_LANES;
        if (vectors == 1) sweep(part, step, q, scale + at, corr + at, base, z, n, at, k, planes, 1), at += TF_LANES;
        w += step * (size_t)((k + 3) / 4);
    }
}

void TF_NAME(i8)(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                 const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k) {
    gemm(w, q, scale, corr, base, z, n, rows, k, 1);
}

void TF_NAME(i8a16)(const int8_t *w, const uint8_t *const *q, const float *scale, const int32_t *corr,
                    const float *const *base, float *const *z, int32_t n, int32_t rows, int32_t k) {
    gemm(w, q, scale, corr, base, z, n, rows, k, 2);
}
