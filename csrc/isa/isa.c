/* Which instruction sets this processor and operating system can run, and which one the kernels use.
 *
 * A CPU flag alone is not enough: the operating system must save the wider registers on a context switch, which
 * XGETBV tells. Both are asked, so that a kernel never meets a register the system loses. */
#include "tengri/isa.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#define TF_X86 1
#endif

/* Bits of `detect()`; the order is the order in which names are listed. */
static const char *const FEATURE_NAMES[] = {
    "sse4.2", "avx", "f16c", "fma", "avx2", "avxvnni", "avx512f", "avx512bw",
    "avx512dq", "avx512vl", "avx512vnni", "avx512bf16", "avx512fp16", "neon",
};
enum {
    HAS_SSE42 = 1 << 0, HAS_AVX = 1 << 1, HAS_F16C = 1 << 2, HAS_FMA = 1 << 3, HAS_AVX2 = 1 << 4,
    HAS_AVXVNNI = 1 << 5, HAS_AVX512F = 1 << 6, HAS_AVX512BW = 1 << 7, HAS_AVX512DQ = 1 << 8, HAS_AVX512VL = 1 << 9,
    HAS_AVX512VNNI = 1 << 10, HAS_AVX512BF16 = 1 << 11, HAS_AVX512FP16 = 1 << 12, HAS_NEON = 1 << 13
};
enum { FEATURE_COUNT = sizeof FEATURE_NAMES / sizeof FEATURE_NAMES[0] };

static const char *const ISA_NAMES[TF_ISA_COUNT] = {
    "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "avx512fp16",
};

static tf_isa active_isa = TF_ISA_SCALAR;

#ifdef TF_X86
static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static uint32_t detect(void) {
    uint32_t a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (c & (1u << 20)) found |= HAS_SSE42;
    const uint32_t leaf1 = c;
    uint64_t xcr0 = 0;
    if (leaf1 & (1u << 27)) xcr0 = read_xcr0(); /* OSXSAVE */
    if ((xcr0 & 0x06) != 0x06) return found;    /* XMM and YMM state */
    if (leaf1 & (1u << 28)) found |= HAS_AVX;
    if (leaf1 & (1u << 29)) found |= HAS_F16C;
    if (leaf1 & (1u << 12)) found |= HAS_FMA;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    const uint32_t leaf7b = b, leaf7c = c, leaf7d = d;
    if (leaf7b & (1u << 5)) found |= HAS_AVX2;
    uint32_t leaf71a = 0;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) leaf71a = a;
    if (leaf71a & (1u << 4)) found |= HAS_AVXVNNI;
    if ((xcr0 & 0xE6) != 0xE6) return found; /* opmask, ZMM0-15 upper halves, ZMM16-31 */
    if (leaf7b & (1u << 16)) found |= HAS_AVX512F;
    if (leaf7b & (1u << 30)) found |= HAS_AVX512BW;
    if (leaf7b & (1u << 17)) found |= HAS_AVX512DQ;
    if (leaf7b & (1u << 31)) found |= HAS_AVX512VL;
    if (leaf7c & (1u << 11)) found |= HAS_AVX512VNNI;
    if (leaf71a & (1u << 5)) found |= HAS_AVX512BF16;
    if (leaf7d & (1u << 23)) found |= HAS_AVX512FP16;
    return found;
}
#elif defined(__aarch64__)
static uint32_t detect(void) { return HAS_NEON; } /* part of the ARMv8-A base */
#else
static uint32_t detect(void) { return 0; }
#endif

int tf_isa_available(tf_isa isa) {
    const uint32_t found = detect();
    const uint32_t avx2 = HAS_AVX2 | HAS_FMA | HAS_F16C;
    const uint32_t avx512 = avx2 | HAS_AVX512F | HAS_AVX512BW | HAS_AVX512DQ | HAS_AVX512VL;
    const uint32_t vnni = avx512 | HAS_AVX512VNNI, bf16 = vnni | HAS_AVX512BF16, fp16 = bf16 | HAS_AVX512FP16;
    (void)found;
    (void)fp16;
    switch (isa) {
    case TF_ISA_SCALAR: return 1;
#ifdef TF_HAVE_AVX2
    case TF_ISA_AVX2: return (found & avx2) == avx2;
#endif
#ifdef TF_HAVE_AVX512
    case TF_ISA_AVX512: return (found & avx512) == avx512;
#endif
#ifdef TF_HAVE_AVX512VNNI
    case TF_ISA_AVX512VNNI: return (found & vnni) == vnni;
#endif
#ifdef TF_HAVE_AVXVNNI
    case TF_ISA_AVXVNNI: return (found & (avx2 | HAS_AVXVNNI)) == (avx2 | HAS_AVXVNNI);
#endif
#ifdef TF_HAVE_AVX512BF16
    case TF_ISA_AVX512BF16: return (found & bf16) == bf16;
#endif
#ifdef TF_HAVE_AVX512FP16
    case TF_ISA_AVX512FP16: return (found & fp16) == fp16;
#endif
    default: return 0;
    }
}

tf_status tf_isa_select(const char *name) {
    if (name == NULL) name = getenv("TENGRI_ISA");
    if (name == NULL || name[0] == '\0') {
        int best = TF_ISA_COUNT - 1;
        while (best > TF_ISA_SCALAR && !tf_isa_available((tf_isa)best)) best--;
        active_isa = (tf_isa)best;
        return TF_OK;
    }
    for (int i = 0; i < TF_ISA_COUNT; i++) {
        if (strcmp(name, ISA_NAMES[i]) == 0) {
            if (!tf_isa_available((tf_isa)i)) return TF_ERR_ISA;
            active_isa = (tf_isa)i;
            return TF_OK;
        }
    }
    return TF_ERR_ISA;
}

tf_isa tf_isa_active(void) { return active_isa; }

const char *tf_isa_name(tf_isa isa) {
    return (int)isa >= 0 && (int)isa < TF_ISA_COUNT ? ISA_NAMES[isa] : "unknown";
}

size_t tf_cpu_features(char *out, size_t size) {
    const uint32_t found = detect();
    size_t length = 0;
    if (size == 0) return 0;
    for (int i = 0; i < FEATURE_COUNT; i++) {
        if (!(found & (1u << i))) continue;
        const size_t word = strlen(FEATURE_NAMES[i]), gap = length > 0;
        if (length + gap + word + 1 > size) break; /* only whole names */
        if (gap) out[length++] = ' ';
        memcpy(out + length, FEATURE_NAMES[i], word);
        length += word;
    }
    out[length] = '\0';
    return length;
}

const char *tf_status_text(tf_status status) {
    switch (status) {
    case TF_OK: return "no error";
    case TF_ERR_ARGUMENT: return "a parameter breaks its rule";
    case TF_ERR_SHAPE: return "sizes do not fit each other";
    case TF_ERR_MEMORY: return "the buffer is too small, or memory ran out at construction";
    case TF_ERR_ISA: return "the requested instruction set is unknown, or this machine cannot run it";
    case TF_ERR_FORMAT: return "the bytes are damaged, of another version, or belong to another model";
    case TF_ERR_NONFINITE: return "NaN or infinity where a finite number is needed";
    }
    return "unknown status";
}
