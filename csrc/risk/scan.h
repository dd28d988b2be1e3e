/* Loops over scenarios, in one version per instruction set. All give the same bits: a product and a sum are rounded one
 * after the other, and sums run in eight lanes, lane s mod 8, which are added at the end in one order.
 *
 * n counts scenarios. Arrays are readable and, where they are written, writable up to the next multiple of 16. */
#ifndef TENGRI_RISK_SCAN_H
#define TENGRI_RISK_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TF_SCAN_TOGETHER 4 /* columns that one pass over the results can add */
#define TF_SCAN_FEW 32 /* values that `few` selects from */

typedef struct {
    /* y += a[0] x[0] + ... + a[count - 1] x[count - 1], from left to right, count <= TF_SCAN_TOGETHER. */
    void (*add)(double *y, const float *const *x, const double *a, size_t count, size_t n);
    void (*add_wide)(double *y, const double *x, double a, size_t n);
    /* Result of one unit of a binary at price p, without its scale: clip(p (1 + x), 0, 1) - p. */
    void (*binary)(double *out, const float *x, double p, size_t n);
    /* base + offset + a x, offset NULL: none. `keep` writes those that are not above `most` (NaN is not, and becomes
     * -infinity) in their order and returns how many; `out` has room for n + 16. */
    void (*line)(double *out, const double *base, const double *offset, const float *x, double a, size_t n);
    void (*line_wide)(double *out, const double *base, const double *offset, const double *x, double a, size_t n);
    size_t (*keep)(double *out, const double *base, const double *offset, const float *x, double a, double most,
                   size_t n);
    size_t (*keep_wide)(double *out, const double *base, const double *offset, const double *x, double a, double most,
                        size_t n);
    /* Those below a value, in their order; `out` may be `x`. Returns how many. */
    size_t (*below)(double *out, const double *x, double value, size_t n);
    size_t (*above)(double *out, const double *x, double value, size_t n);
    /* The k-th smallest of at most TF_SCAN_FEW, 1 <= k <= n. */
    double (*few)(const double *x, size_t n, size_t k);
    double (*sum)(const double *x, size_t n);
    double (*least)(const double *x, size_t n); /* NaN is less than anything */
} tf_scan;

extern const tf_scan tf_scan_scalar;
#ifdef TF_HAVE_AVX2
extern const tf_scan tf_scan_avx2;
#endif
#ifdef TF_HAVE_AVX512
extern const tf_scan tf_scan_avx512;
#endif

/* The table of the instruction set in use (tf_isa_active). */
const tf_scan *tf_scan_active(void);

/* The k-th smallest of x[0 .. n - 1], 1 <= k <= n, none of them NaN; x is used up, `spare` has room for n + 16. */
double tf_scan_select(const tf_scan *scan, double *x, double *spare, size_t n, size_t k);

#endif
