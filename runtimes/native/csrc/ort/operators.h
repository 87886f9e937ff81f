// The operators of the domain "sparsepack", version 1. docs/operators.md is their schema.
#pragma once

#include "abi.h"
#include "access.h"
#include "kernels/kernel.h"

namespace sparsepack::ort {

// What a kernel does; one object a node of a session.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(const Call& call, Executor& executor) = 0;
};

using MakeKernel = Kernel* (*)(const Attributes&);
Kernel* make_sparse_conv(const Attributes& attributes);
Kernel* make_sparse_matmul(const Attributes& attributes);

// "" | "Relu" | "Clip" | "LeakyRelu" | "HardSwish" | "Silu" | "Gelu" | "GeluTanh", with activation_params.
ActivationSpec read_activation(const Attributes& attributes);

}  // namespace sparsepack::ort
