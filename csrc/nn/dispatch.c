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

#define TF_PICK_SCALAR(name, avx2, avx512, vnni) name##_scalar
#define TF_PICK_AVX2(name, avx2, avx512, vnni) TF_OWN_AVX2(avx2, name##_avx2, name##_scalar)
#define TF_PICK_AVX512(name, avx2, avx512, vnni)                                                                       \
    TF_OWN_AVX512(avx512, name##_avx512, TF_PICK_AVX2(name, avx2, avx512, vnni))
#define TF_PICK_VNNI(name, avx2, avx512, vnni)                                                                         \
    TF_OWN_VNNI(vnni, name##_avx512vnni, TF_PICK_AVX512(name, avx2, avx512, vnni))

static const tf_kernels TABLES[TF_ISA_COUNT] = {
    {
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda)                               \
    .op##_##dtype = TF_PICK_SCALAR(tf_##op##_##dtype, avx2, avx512, vnni),
#include "kernels.def"
#undef TF_KERNEL
    },
    {
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda)                               \
    .op##_##dtype = TF_PICK_AVX2(tf_##op##_##dtype, avx2, avx512, vnni),
#include "kernels.def"
#undef TF_KERNEL
    },
    {
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda)                               \
    .op##_##dtype = TF_PICK_AVX512(tf_##op##_##dtype, avx2, avx512, vnni),
#include "kernels.def"
#undef TF_KERNEL
    },
    {
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda)                               \
    .op##_##dtype = TF_PICK_VNNI(tf_##op##_##dtype, avx2, avx512, vnni),
#include "kernels.def"
#undef TF_KERNEL
    },
};

const tf_kernels *tf_kernels_of(tf_isa isa) {
    return &TABLES[(int)isa >= 0 && (int)isa < TF_ISA_COUNT ? isa : TF_ISA_SCALAR];
}

static const tf_kernel_info INFO[] = {
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda)                               \
    {#op, #dtype, #parameters, tolerance, reference, cuda,                                                             \
     1u | TF_OWN_AVX2(avx2, 1u << TF_ISA_AVX2, 0u) | TF_OWN_AVX512(avx512, 1u << TF_ISA_AVX512, 0u) |                  \
         TF_OWN_VNNI(vnni, 1u << TF_ISA_AVX512VNNI, 0u)},
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
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda)                               \
    case TF_KERNEL_##op##_##dtype: return (tf_kernel_function)table->op##_##dtype;
#include "kernels.def"
#undef TF_KERNEL
    default: return NULL;
    }
}
