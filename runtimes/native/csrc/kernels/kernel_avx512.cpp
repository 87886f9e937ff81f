// AVX-512 (F, VL, BW, DQ).
#if defined(__x86_64__)
#include <cmath>
#include <cstring>

#include "kernel.h"

// After the headers, whose inline functions the linker may share with other files; and here rather
// than as a compiler option, so that every build system compiles every file alike.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma")
#endif

#define SPARSEPACK_LANES 16
#define SPARSEPACK_MAX_UNITS 16
#include "kernel_impl.h"

namespace sparsepack {
extern const KernelSet kernels_avx512;
const KernelSet kernels_avx512 = make_set("avx512");
}  // namespace sparsepack
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
