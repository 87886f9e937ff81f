// Sparse linear layer: tokens x features in, tokens x outputs out, weights sparse.
//
// Activations arrive with a token's features side by side; the kernel wants a feature's tokens
// side by side, so tiles of tokens are transposed on the way in and on the way out. Whoever has them
// by feature, or wants them so, says it: they are then copied as they lie.
#pragma once

#include "parallel.h"
#include "program.h"

namespace sparsepack {

struct LinearCall {
  const float* input;     // matrices x tokens x weight columns; by_feature: matrices x weight columns x tokens
  size_t tokens;          // of one matrix
  const float* bias;      // by output; may be null
  const float* residual;  // output-shaped; may be null
  float* output;          // matrices x tokens x weight rows; by_feature: matrices x weight rows x tokens
  size_t matrices = 1;
  bool input_by_feature = false, output_by_feature = false;
};

class SparseLinear {
 public:
  SparseLinear(SparseRows weight, ActivationSpec activation);

  size_t inputs() const { return inputs_; }
  size_t outputs() const { return program_.rows; }
  void run(const LinearCall& call, Executor& executor) const;

 private:
  struct Tile;

  void run_one(const LinearCall& call, Executor& executor) const;
  void sum_rows(const Program& program, size_t group, RowsCall& rows, const float* activations, size_t unit,
                RowsFunction kernel) const;
  size_t width_of(const Tile& tile) const;
  void pack(const LinearCall& call, const Tile& tile, float* to) const;
  void compute(const LinearCall& call, const Tile& tile, size_t group, const float* activations, float* sums) const;
  const Program& few() const;  // for narrow tiles; offsets count columns; laid out when first met

  const KernelSet& kernels_;
  ActivationSpec activation_;
  size_t inputs_;
  size_t tile_floats_;  // tokens in a tile
  size_t block_columns_ = 0;
  Program program_;
  mutable Crew crew_;
  mutable std::once_flag few_once_;
  mutable Program few_;
};

}  // namespace sparsepack
