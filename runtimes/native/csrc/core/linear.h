// Sparse linear layer: tokens x features in, tokens x outputs out, weights sparse.
//
// Activations arrive with a token's features side by side; the kernel wants a feature's tokens
// side by side, so tiles of tokens are transposed on the way in and on the way out.
#pragma once

#include "parallel.h"
#include "program.h"

namespace sparsepack {

struct LinearCall {
  const float* input;     // tokens x weight columns
  size_t tokens;
  const float* bias;      // by output; may be null
  const float* residual;  // output-shaped; may be null
  float* output;          // tokens x weight rows
};

class SparseLinear {
 public:
  SparseLinear(SparseRows weight, ActivationSpec activation);

  size_t inputs() const { return inputs_; }
  size_t outputs() const { return program_.rows; }
  void run(const LinearCall& call, Executor& executor) const;

 private:
  void run_one(const LinearCall& call, Executor& executor) const;
  void sum_rows(const Program& program, size_t group, RowsCall& rows, const float* activations, size_t unit,
                RowsFunction kernel) const;
  const Program& few() const;  // for narrow tiles; offsets count columns; laid out when first met

  const KernelSet& kernels_;
  ActivationSpec activation_;
  size_t inputs_;
  size_t tile_floats_;  // tokens in a tile
  size_t block_columns_ = 0;
  Program program_;
  mutable std::once_flag few_once_;
  mutable Program few_;
};

}  // namespace sparsepack
