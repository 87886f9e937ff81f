// AVX2 with fused multiply-add.
#if defined(__x86_64__)
#include <cmath>
#include <cstring>

#include "kernel.h"

// After the headers, whose inline functions the linker may share with other files; and here rather
// than as a compiler option, so that every build system compiles every file alike.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define SPARSEPACK_LANES 8
#define SPARSEPACK_MAX_UNITS 12
#include "kernel_impl.h"

namespace sparsepack {
extern const KernelSet kernels_avx2;
const KernelSet kernels_avx2 = make_set("avx2");
}  // namespace sparsepack
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
