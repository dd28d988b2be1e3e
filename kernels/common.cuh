// What every kernel shares: device helpers, and the switch that compiles the same source for the CPU.
//
// With TF_HOST_SHIM defined the file is ordinary C++ and host_shim.h stands in for the CUDA runtime, so that a kernel
// can be proven where there is no GPU. Shared memory of run-time size is declared through TF_DYNAMIC_SHARED, because
// `extern __shared__` has no host twin.
#pragma once

#ifdef TF_HOST_SHIM
#include "host_shim.h"
#define TF_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(tf_shim::dynamic_shared())
#else
#include <cuda_runtime.h>
#define TF_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#endif

namespace tf {

// Gates are clamped before exp: beyond +-30 a float32 sigmoid has long saturated, and exp would overflow. The
// comparison keeps NaN, so that a NaN input is seen in the output and not hidden by the clamp.
__device__ __forceinline__ float clamp_gate(float z) { return z > 30.0f ? 30.0f : (z < -30.0f ? -30.0f : z); }

__device__ __forceinline__ float sigmoid(float z) { return 1.0f / (1.0f + expf(-clamp_gate(z))); }

}  // namespace tf
