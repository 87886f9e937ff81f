// Sparse convolution over NCHW activations, with bias, residual add and activation in one pass.
//
// Output tiles are short runs of pixels held in registers while a row of the weight passes by.
// A 1x1 kernel of stride 1 reads the input where it lies if planes are aligned; every other shape
// reads a copy of the tile's input in which each kernel column has its own shifted copy, so that
// every load is aligned and strides cost nothing in the inner loop.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "parallel.h"
#include "program.h"

namespace sparsepack {

struct ConvSpec {
  size_t out_channels = 0;
  size_t group_channels = 0;  // input channels of one group
  size_t groups = 1;
  std::array<int64_t, 2> kernel{1, 1}, stride{1, 1}, dilation{1, 1};
  std::array<int64_t, 4> pad{0, 0, 0, 0};  // top, left, bottom, right
  ActivationSpec activation;
};

struct ConvCall {
  const float* input;
  int64_t batch, height, width;
  const float* bias;      // may be null
  const float* residual;  // output-shaped; may be null
  float* output;
};

class ConvPlan;

class SparseConv {
 public:
  // The weight is out_channels x (group_channels * kernel height * kernel width).
  SparseConv(ConvSpec spec, SparseRows weight);
  ~SparseConv();

  const ConvSpec& spec() const { return spec_; }
  const SparseRows& weight() const { return weight_; }
  // Throws InputError where the kernel does not fit the padded input.
  std::array<int64_t, 2> output_size(int64_t height, int64_t width) const;
  void run(const ConvCall& call, Executor& executor);
  // Lays the weight out for this input size now instead of in the first run.
  void prepare(int64_t height, int64_t width);

 private:
  std::shared_ptr<const ConvPlan> plan_for(int64_t height, int64_t width);

  ConvSpec spec_;
  SparseRows weight_;
  Crew crew_;
  std::mutex mutex_;
  std::map<std::array<int64_t, 2>, std::shared_ptr<const ConvPlan>> plans_;
};

}  // namespace sparsepack
