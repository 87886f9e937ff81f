// Chooses the instruction set once, from what the processor and its operating system offer.
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernel.h"

namespace sparsepack {

extern const KernelSet kernels_generic;
#if defined(__x86_64__)
extern const KernelSet kernels_avx2;
extern const KernelSet kernels_avx512;
#elif defined(__aarch64__)
extern const KernelSet kernels_neon;
#endif

const KernelSet* kernels_named(const char* name) {
  if (!std::strcmp(name, "generic")) return &kernels_generic;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!std::strcmp(name, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return &kernels_avx2;
  }
  if (!std::strcmp(name, "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    return &kernels_avx512;
  }
#elif defined(__aarch64__)
  if (!std::strcmp(name, "neon")) return &kernels_neon;
#endif
  return nullptr;
}

namespace {
const KernelSet& choose() {
  if (const char* wanted = std::getenv("SPARSEPACK_ISA")) {
    if (const KernelSet* set = kernels_named(wanted)) return *set;
  }
  for (const char* name : {"avx512", "avx2", "neon"}) {
    if (const KernelSet* set = kernels_named(name)) return *set;
  }
  return kernels_generic;
}
}  // namespace

const KernelSet& kernels() {
  static const KernelSet& chosen = choose();
  return chosen;
}

}  // namespace sparsepack
