/* Dispatch: the kernels of kernels.def as one struct of function pointers per instruction set. */
#ifndef TF_NN_KERNELS_H
#define TF_NN_KERNELS_H

#include "tengri/isa.h"
#include "tengri/nn.h"

typedef struct tf_kernels {
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda) void(*op##_##dtype) parameters;
#include "kernels.def"
#undef TF_KERNEL
} tf_kernels;

enum tf_kernel_index {
#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda) TF_KERNEL_##op##_##dtype,
#include "kernels.def"
#undef TF_KERNEL
    TF_KERNEL_COUNT
};

#define TF_KERNEL(op, dtype, parameters, avx2, avx512, vnni, tolerance, reference, cuda)                               \
    void tf_##op##_##dtype##_scalar parameters;                                                                        \
    void tf_##op##_##dtype##_avx2 parameters;                                                                          \
    void tf_##op##_##dtype##_avx512 parameters;                                                                        \
    void tf_##op##_##dtype##_avx512vnni parameters;
#include "kernels.def"
#undef TF_KERNEL

/* The table of one instruction set; a row it has no kernel for points to the next lower one that has. */
const tf_kernels *tf_kernels_of(tf_isa isa);

#endif
