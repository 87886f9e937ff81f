// NEON of 64-bit ARM, where it is part of the base architecture.
#if defined(__aarch64__)
#include <cmath>
#include <cstring>

#include "kernel.h"

#define SPARSEPACK_LANES 4
#define SPARSEPACK_MAX_UNITS 12
#include "kernel_impl.h"

namespace sparsepack {
extern const KernelSet kernels_neon;
const KernelSet kernels_neon = make_set("neon");
}  // namespace sparsepack
#endif
