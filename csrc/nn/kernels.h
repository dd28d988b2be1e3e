/* Dispatch: the kernels of kernels.def as one struct of function pointers per instruction set. */
#ifndef TF_NN_KERNELS_H
#define TF_NN_KERNELS_H

#include "tengri/isa.h"
#include "tengri/nn.h"

#define TF_KERNEL(op, dtype, parameters, avx2, avxvnni, avx512, vnni, bf16, fp16, tolerance, reference, cuda)          \
    void(*op##_##dtype) parameters;
typedef struct tf_kernels {
#include "kernels.def"
} tf_kernels;
#undef TF_KERNEL

#define TF_KERNEL(op, dtype, parameters, avx2, avxvnni, avx512, vnni, bf16, fp16, tolerance, reference, cuda)          \
    TF_KERNEL_##op##_##dtype,
enum tf_kernel_index {
#include "kernels.def"
    TF_KERNEL_COUNT
};
#undef TF_KERNEL

#define TF_KERNEL(op, dtype, parameters, avx2, avxvnni, avx512, vnni, bf16, fp16, tolerance, reference, cuda)          \
    void tf_##op##_##dtype##_scalar parameters;                                                                        \
    void tf_##op##_##dtype##_avx2 parameters;                                                                          \
    void tf_##op##_##dtype##_avxvnni parameters;                                                                       \
    void tf_##op##_##dtype##_avx512 parameters;                                                                        \
    void tf_##op##_##dtype##_avx512vnni parameters;                                                                    \
    void tf_##op##_##dtype##_avx512bf16 parameters;                                                                    \
    void tf_##op##_##dtype##_avx512fp16 parameters;
#include "kernels.def"
#undef TF_KERNEL

/* The table of one instruction set; a row it has no kernel for points to the next lower one that has. */
const tf_kernels *tf_kernels_of(tf_isa isa);

#endif
