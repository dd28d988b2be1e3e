#include "kernels.h"

#include <stddef.h>

/* TF_OWN_X(flag, own, lower): `own` when the table says so and this build has the instruction set, else `lower`. */
#define TF_IF_1(own, lower) own
#define TF_IF_0(own, lower) lower
#ifdef TF_HAVE_AVX2
#define TF_OWN_AVX2(flag, own, lower) TF_IF_##flag(own, lower)
#else
#define TF_OWN_AVX2(flag, own, lower) lower
#endif
#ifdef TF_HAVE_AVXVNNI
#define TF_OWN_AVXVNNI(flag, own, lower) TF_IF_##flag(own, lower)
#else
#define TF_OWN_AVXVNNI(flag, own, lower) lower
#endif
#ifdef TF_HAVE_AVX512
#define TF_OWN_AVX512(flag, own, lower) TF_IF_##flag(own, lower)
#else
#define TF_OWN_AVX512(flag, own, lower) lower
#endif
#ifdef TF_HAVE_AVX512VNNI
#define TF_OWN_VNNI(flag, own, lower) TF_IF_##flag(own, lower)
#else
#define TF_OWN_VNNI(flag, own, lower) lower
#endif
#ifdef TF_HAVE_AVX512BF16
#define TF_OWN_BF16(flag, own, lower) TF_IF_##flag(own, lower)
#else
#define TF_OWN_BF16(flag, own, lower) lower
#endif
#ifdef TF_HAVE_AVX512FP16
#define TF_OWN_FP16(flag, own, lower) TF_IF_##flag(own, lower)
#else
#define TF_OWN_FP16(flag, own, lower) lower
#endif

/* What an instruction set runs, from the flags of a row; each looks one step down (tengri/isa.h). */
#define TF_PICK_SCALAR(name, a2, av, a5, vn, bf, fp) name##_scalar
#define TF_PICK_AVX2(name, a2, av, a5, vn, bf, fp)                                                                     \
    TF_OWN_AVX2(a2, name##_avx2, TF_PICK_SCALAR(name, a2, av, a5, vn, bf, fp))
#define TF_PICK_AVXVNNI(name, a2, av, a5, vn, bf, fp)                                                                  \
    TF_OWN_AVXVNNI(av, name##_avxvnni, TF_PICK_AVX2(name, a2, av, a5, vn, bf, fp))
#define TF_PICK_AVX512(name, a2, av, a5, vn, bf, fp)                                                                   \
    TF_OWN_AVX512(a5, name##_avx512, TF_PICK_AVX2(name, a2, av, a5, vn, bf, fp))
#define TF_PICK_AVX512VNNI(name, a2, av, a5, vn, bf, fp)                                                               \
    TF_OWN_VNNI(vn, name##_avx512vnni, TF_PICK_AVX512(name, a2, av, a5, vn, bf, fp))
#define TF_PICK_AVX512BF16(name, a2, av, a5, vn, bf, fp)                                                               \
    TF_OWN_BF16(bf, name##_avx512bf16, TF_PICK_AVX512VNNI(name, a2, av, a5, vn, bf, fp))
#define TF_PICK_AVX512FP16(name, a2, av, a5, vn, bf, fp)                                                               \
    TF_OWN_FP16(fp, name##_avx512fp16, TF_PICK_AVX512BF16(name, a2, av, a5, vn, bf, fp))

static const tf_kernels TABLES[TF_ISA_COUNT] = {
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    .op##_##dtype = TF_PICK_SCALAR(tf_##op##_##dtype, a2, av, a5, vn, bf, fp),
    [TF_ISA_SCALAR] = {
#include "kernels.def"
    },
#undef TF_KERNEL
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    .op##_##dtype = TF_PICK_AVX2(tf_##op##_##dtype, a2, av, a5, vn, bf, fp),
    [TF_ISA_AVX2] = {
#include "kernels.def"
    },
#undef TF_KERNEL
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    .op##_##dtype = TF_PICK_AVXVNNI(tf_##op##_##dtype, a2, av, a5, vn, bf, fp),
    [TF_ISA_AVXVNNI] = {
#include "kernels.def"
    },
#undef TF_KERNEL
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    .op##_##dtype = TF_PICK_AVX512(tf_##op##_##dtype, a2, av, a5, vn, bf, fp),
    [TF_ISA_AVX512] = {
#include "kernels.def"
    },
#undef TF_KERNEL
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    .op##_##dtype = TF_PICK_AVX512VNNI(tf_##op##_##dtype, a2, av, a5, vn, bf, fp),
    [TF_ISA_AVX512VNNI] = {
#include "kernels.def"
    },
#undef TF_KERNEL
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    .op##_##dtype = TF_PICK_AVX512BF16(tf_##op##_##dtype, a2, av, a5, vn, bf, fp),
    [TF_ISA_AVX512BF16] = {
#include "kernels.def"
    },
#undef TF_KERNEL
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    .op##_##dtype = TF_PICK_AVX512FP16(tf_##op##_##dtype, a2, av, a5, vn, bf, fp),
    [TF_ISA_AVX512FP16] = {
#include "kernels.def"
    },
#undef TF_KERNEL
};

const tf_kernels *tf_kernels_of(tf_isa isa) {
    return &TABLES[(int)isa >= 0 && (int)isa < TF_ISA_COUNT ? isa : TF_ISA_SCALAR];
}

static const tf_kernel_info INFO[] = {
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    {#op, #dtype, #parameters, tolerance, reference, cuda,                                                             \
     1u | TF_OWN_AVX2(a2, 1u << TF_ISA_AVX2, 0u) | TF_OWN_AVXVNNI(av, 1u << TF_ISA_AVXVNNI, 0u) |                      \
         TF_OWN_AVX512(a5, 1u << TF_ISA_AVX512, 0u) | TF_OWN_VNNI(vn, 1u << TF_ISA_AVX512VNNI, 0u) |                   \
         TF_OWN_BF16(bf, 1u << TF_ISA_AVX512BF16, 0u) | TF_OWN_FP16(fp, 1u << TF_ISA_AVX512FP16, 0u)},
#include "kernels.def"
#undef TF_KERNEL
};

int32_t tf_kernel_count(void) { return TF_KERNEL_COUNT; }

const tf_kernel_info *tf_kernel_describe(int32_t index) {
    return index >= 0 && index < TF_KERNEL_COUNT ? &INFO[index] : NULL;
}

tf_kernel_function tf_kernel_get(int32_t index, tf_isa isa) {
    if (index < 0 || index >= TF_KERNEL_COUNT || !tf_isa_available(isa)) return NULL;
    const tf_kernels *table = tf_kernels_of(isa);
    switch (index) {
#define TF_KERNEL(op, dtype, parameters, a2, av, a5, vn, bf, fp, tolerance, reference, cuda)                           \
    case TF_KERNEL_##op##_##dtype: return (tf_kernel_function)table->op##_##dtype;
#include "kernels.def"
#undef TF_KERNEL
    default: return NULL;
    }
}
