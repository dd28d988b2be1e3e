/* The loops of scan.h that a compiler turns into vectors by itself; included once per instruction set, which defines
 * NAME(function) and the loops that it writes by hand: add, keep, keep_wide, below, above. */

static void NAME(add_wide)(double *y, const double *x, double a, size_t n) {
    for (size_t s = 0; s < n; s++) y[s] += a * x[s];
}

static void NAME(binary)(double *out, const float *x, double p, size_t n) {
    for (size_t s = 0; s < n; s++) {
        double price = p * (1.0 + (double)x[s]);
        price = price > 0.0 ? price : 0.0;
        price = price < 1.0 ? price : 1.0;
        out[s] = price - p;
    }
}

static void NAME(line)(double *out, const double *base, const double *offset, const float *x, double a, size_t n) {
    if (offset) {
        for (size_t s = 0; s < n; s++) out[s] = (base[s] + offset[s]) + a * (double)x[s];
    } else {
        for (size_t s = 0; s < n; s++) out[s] = base[s] + a * (double)x[s];
    }
}

static void NAME(line_wide)(double *out, const double *base, const double *offset, const double *x, double a,
                            size_t n) {
    if (offset) {
        for (size_t s = 0; s < n; s++) out[s] = (base[s] + offset[s]) + a * x[s];
    } else {
        for (size_t s = 0; s < n; s++) out[s] = base[s] + a * x[s];
    }
}

/* The largest of those that have fewer than k below them. */
static double NAME(few)(const double *x, size_t n, size_t k) {
    double padded[TF_SCAN_FEW], below[TF_SCAN_FEW];
    for (size_t i = 0; i < TF_SCAN_FEW; i++) {
        padded[i] = i < n ? x[i] : INFINITY;
        below[i] = 0.0;
    }
    for (size_t j = 0; j < n; j++) {
        const double one = x[j];
        for (size_t i = 0; i < TF_SCAN_FEW; i++) below[i] += one < padded[i] ? 1.0 : 0.0;
    }
    double found = -INFINITY;
    for (size_t i = 0; i < n; i++) found = below[i] < (double)k && padded[i] > found ? padded[i] : found;
    return found;
}

static double NAME(sum)(const double *x, size_t n) {
    double lanes[8] = {0.0};
    size_t s = 0;
    for (; s + 8 <= n; s += 8) {
        for (size_t j = 0; j < 8; j++) lanes[j] += x[s + j];
    }
    for (size_t j = 0; s + j < n; j++) lanes[j] += x[s + j];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static double NAME(least)(const double *x, size_t n) {
    double lanes[8];
    size_t s = 0;
    for (size_t j = 0; j < 8; j++) lanes[j] = INFINITY;
    for (; s + 8 <= n; s += 8) {
        for (size_t j = 0; j < 8; j++) {
            const double value = x[s + j] >= lanes[j] ? lanes[j] : x[s + j]; /* a NaN is taken, and stays */
            lanes[j] = lanes[j] == lanes[j] ? value : lanes[j];
        }
    }
    for (size_t j = 0; s + j < n; j++) lanes[j] = lanes[j] != lanes[j] || x[s + j] >= lanes[j] ? lanes[j] : x[s + j];
    double least = INFINITY;
    for (size_t j = 0; j < 8; j++) {
        if (lanes[j] != lanes[j]) return -INFINITY;
        if (lanes[j] < least) least = lanes[j];
    }
    return least;
}

#define TABLE                                                                                                          \
    {                                                                                                                  \
        .add = NAME(add),                                                                                              \
        .add_wide = NAME(add_wide),                                                                                    \
        .binary = NAME(binary),                                                                                        \
        .line = NAME(line),                                                                                            \
        .line_wide = NAME(line_wide),                                                                                  \
        .keep = NAME(keep),                                                                                            \
        .keep_wide = NAME(keep_wide),                                                                                  \
        .below = NAME(below),                                                                                          \
        .above = NAME(above),                                                                                          \
        .few = NAME(few),                                                                                              \
        .sum = NAME(sum),                                                                                              \
        .least = NAME(least),                                                                                          \
    }
