/* The portable loops over scenarios, the choice among instruction sets, and selection. */
#include "risk/scan.h"

#include <math.h>
#include <string.h>

#include <tengri/isa.h>

#define NAME(function) function##_scalar

#define KEEP(name, type)                                                                                               \
    static size_t name(double *out, const double *base, const double *offset, const type *x, double a, double most,    \
                       size_t n) {                                                                                     \
        size_t kept = 0;                                                                                               \
        for (size_t s = 0; s < n; s++) {                                                                               \
            double value = (offset ? base[s] + offset[s] : base[s]) + a * (double)x[s];                                \
            value = value > -INFINITY ? value : -INFINITY;                                                             \
            out[kept] = value;                                                                                         \
            kept += !(value > most);                                                                                   \
        }                                                                                                              \
        return kept;                                                                                                   \
    }
KEEP(keep_scalar, float)
KEEP(keep_wide_scalar, double)

static size_t below_scalar(double *out, const double *x, double value, size_t n) {
    size_t kept = 0;
    for (size_t s = 0; s < n; s++) {
        const double at = x[s];
        out[kept] = at;
        kept += at < value;
    }
    return kept;
}

static size_t above_scalar(double *out, const double *x, double value, size_t n) {
    size_t kept = 0;
    for (size_t s = 0; s < n; s++) {
        const double at = x[s];
        out[kept] = at;
        kept += at > value;
    }
    return kept;
}

static void add_scalar(double *y, const float *const *x, const double *a, size_t count, size_t n) {
    for (size_t s = 0; s < n; s++) {
        double value = y[s];
        for (size_t i = 0; i < count; i++) value += a[i] * (double)x[i][s];
        y[s] = value;
    }
}

#include "risk/scan_body.h"

const tf_scan tf_scan_scalar = TABLE;

const tf_scan *tf_scan_active(void) {
    switch (tf_isa_active()) {
#ifdef TF_HAVE_AVX512
    case TF_ISA_AVX512:
    case TF_ISA_AVX512VNNI:
    case TF_ISA_AVX512BF16:
    case TF_ISA_AVX512FP16: return &tf_scan_avx512;
#endif
#ifdef TF_HAVE_AVX2
    case TF_ISA_AVX2:
    case TF_ISA_AVXVNNI: return &tf_scan_avx2;
#endif
    default: return &tf_scan_scalar;
    }
}

#define ROUNDS 24

/* A number whose order as an integer is that of the double. */
static uint64_t ordered(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

/* By bisection of the bits, 64 passes whatever the values are: for inputs made to have bad pivots. */
static double select_bits(const double *x, size_t n, size_t k) {
    uint64_t found = 0;
    for (int bit = 63; bit >= 0; bit--) {
        const uint64_t tried = found | 1ull << bit;
        size_t smaller = 0;
        for (size_t i = 0; i < n; i++) smaller += ordered(x[i]) < tried;
        if (smaller < k) found = tried;
    }
    const uint64_t bits = found >> 63 ? found & ~(1ull << 63) : ~found;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double tf_scan_select(const tf_scan *scan, double *x, double *spare, size_t n, size_t k) {
    for (int round = 0; n > TF_SCAN_FEW; round++) {
        if (round == ROUNDS) return select_bits(x, n, k);
        const double a = x[n / 4], b = x[n / 2], c = x[n - n / 4];
        const double low = a < b ? a : b, high = a < b ? b : a;
        const double pivot = c < low ? low : c > high ? high : c;
        const size_t below = scan->below(spare, x, pivot, n);
        if (k <= below) {
            double *swap = x;
            x = spare;
            spare = swap;
            n = below;
            continue;
        }
        const size_t above = scan->above(x, x, pivot, n), equal = n - below - above;
        if (k <= below + equal) return pivot;
        k -= below + equal;
        n = above;
    }
    return scan->few(x, n, k);
}
