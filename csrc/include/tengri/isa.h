/* Status codes, CPU features and the choice of instruction set. */
#ifndef TENGRI_ISA_H
#define TENGRI_ISA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tf_status {
    TF_OK = 0,
    TF_ERR_ARGUMENT = 1,    /* a parameter breaks its rule */
    TF_ERR_SHAPE = 2,       /* sizes that do not fit each other */
    TF_ERR_MEMORY = 3,      /* the caller's buffer is too small, or allocation failed at construction */
    TF_ERR_ISA = 4,         /* the requested instruction set is not available */
    TF_ERR_FORMAT = 5,      /* bytes that are not what they claim to be */
    TF_ERR_NONFINITE = 6    /* NaN or infinity where a number is needed */
} tf_status;

/* A fixed English sentence for a status; never NULL. */
const char *tf_status_text(tf_status status);

/* Each has the next lower one below it that a kernel falls back to: avx2 -> scalar, avxvnni -> avx2, avx512 -> avx2,
 * avx512vnni -> avx512, avx512bf16 -> avx512vnni, avx512fp16 -> avx512bf16. */
typedef enum tf_isa {
    TF_ISA_SCALAR = 0,
    TF_ISA_AVX2 = 1,       /* AVX2, FMA, F16C */
    TF_ISA_AVXVNNI = 2,    /* + AVX-VNNI */
    TF_ISA_AVX512 = 3,     /* AVX-512 F, BW, VL, DQ */
    TF_ISA_AVX512VNNI = 4,
    TF_ISA_AVX512BF16 = 5,
    TF_ISA_AVX512FP16 = 6,
    TF_ISA_COUNT = 7
} tf_isa;

/* Resolves the kernel table. `name` is one of "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16",
 * "avx512fp16"; NULL means the environment variable
 * TENGRI_ISA, and when that is unset or empty the best this CPU has. An unknown or impossible name gives TF_ERR_ISA and
 * leaves the table as it was. Call it once at load, before any thread uses a kernel. */
tf_status tf_isa_select(const char *name);
tf_isa tf_isa_active(void);
const char *tf_isa_name(tf_isa isa);
/* 1 if this CPU and operating system can run `isa` and it was compiled in. */
int tf_isa_available(tf_isa isa);
/* Writes a NUL-terminated, space-separated list of the CPU features that matter here; returns its length. */
size_t tf_cpu_features(char *out, size_t size);

/* For benches: a monotonic counter read in order with the code around it, and the length of its tick (takes 20 ms). */
uint64_t tf_timer_ticks(void);
double tf_timer_ns_per_tick(void);

#ifdef __cplusplus
}
#endif
#endif
