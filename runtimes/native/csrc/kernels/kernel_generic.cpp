// Plain vectors of 4: what every processor of the architecture has.
#include <cmath>
#include <cstring>

#include "kernel.h"

#define SPARSEPACK_LANES 4
#define SPARSEPACK_MAX_UNITS 6
#include "kernel_impl.h"

namespace sparsepack {
extern const KernelSet kernels_generic;
const KernelSet kernels_generic = make_set("generic");
}  // namespace sparsepack
