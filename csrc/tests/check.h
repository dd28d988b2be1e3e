/* What the C tests share: a check that counts, and reproducible numbers. */
#ifndef TF_TESTS_CHECK_H
#define TF_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks, failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        checks++;                                                                                                      \
        if (!(condition)) {                                                                                            \
            if (failures++ < 20) printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                        \
        }                                                                                                              \
    } while (0)

/* Uniform in [-2, 2): a linear congruential generator, so that a run can be repeated. */
static inline float noise(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / 4194304.0f - 2.0f;
}

static inline int done(const char *name) {
    printf("%s: %d checks, %d failed\n", name, checks, failures);
    return failures == 0 && checks > 0 ? 0 : 1;
}

#endif
