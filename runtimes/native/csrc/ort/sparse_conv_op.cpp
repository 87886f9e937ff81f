#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "core/conv.h"
#include "operators.h"

namespace sparsepack::ort {
namespace {

// Larger paddings, strides or kernels than this are mistakes, and would overflow sizes.
constexpr int64_t kLimit = 1 << 15;

std::vector<int64_t> spatial(const Attributes& attributes, const char* name, size_t count, int64_t low, int64_t missing) {
  auto values = attributes.integers(name);
  if (values.empty()) values.assign(count, missing);
  if (values.size() != count) {
    throw InputError(std::string(name) + " needs " + std::to_string(count) + " values, got " + std::to_string(values.size()));
  }
  for (int64_t v : values) {
    if (v < low || v > kLimit) throw InputError(std::string(name) + " has the value " + std::to_string(v));
  }
  return values;
}

constexpr size_t kBias = 3, kResidual = 4, kNormalisation = 5;

// A batch normalisation behind the convolution is a factor and an addend a channel. The constants stay
// in the file as they were trained, and are folded here, in double precision.
struct Normalisation {
  std::vector<double> factor, addend;

  explicit operator bool() const { return !factor.empty(); }
};

Normalisation read_normalisation(const Attributes& attributes, size_t channels) {
  Normalisation folded;
  if (!attributes.constant_if(kNormalisation)) return folded;
  static const char* const names[] = {"scale", "shift", "mean", "variance"};
  const float* data[4];
  for (size_t i = 0; i < 4; ++i) {
    const Tensor tensor = attributes.constant(kNormalisation + i, names[i]);
    if (tensor.shape != std::vector<int64_t>{static_cast<int64_t>(channels)}) {
      throw InputError(std::string(names[i]) + " has shape " + shape_text(tensor.shape) + ", expected [" +
                       std::to_string(channels) + "]");
    }
    data[i] = tensor.floats(names[i]);
  }
  const Tensor bias = attributes.constant_if(kBias);
  if (bias && bias.shape != std::vector<int64_t>{static_cast<int64_t>(channels)}) {
    throw InputError("bias has shape " + shape_text(bias.shape) + ", expected [" + std::to_string(channels) + "]");
  }
  const float* before = bias ? bias.floats("bias") : nullptr;
  const double epsilon = static_cast<double>(attributes.number("epsilon", 1e-5f));
  for (size_t c = 0; c < channels; ++c) {
    const double variance = static_cast<double>(data[3][c]) + epsilon;
    if (!(variance > 0)) throw InputError("variance is not positive in channel " + std::to_string(c));
    const double factor = static_cast<double>(data[0][c]) / std::sqrt(variance);
    const double centre = (before ? static_cast<double>(before[c]) : 0.0) - static_cast<double>(data[2][c]);
    folded.factor.push_back(factor);
    folded.addend.push_back(static_cast<double>(data[1][c]) + centre * factor);
  }
  return folded;
}

class ConvKernel final : public Kernel {
 public:
  explicit ConvKernel(const Attributes& attributes) {
    const auto shape = attributes.integers("shape");
    if (shape.size() != 3 && shape.size() != 4) throw InputError("shape must have 3 or 4 values, got " + shape_text(shape));
    for (int64_t d : shape) {
      if (d < 1 || d > INT32_MAX) throw InputError("shape is " + shape_text(shape));
    }
    rank_ = shape.size();
    const size_t axes = rank_ - 2;
    const int64_t groups = attributes.integer("group", 1);
    if (groups < 1 || shape[0] % groups) throw InputError("group is " + std::to_string(groups) + " for shape " + shape_text(shape));
    ConvSpec spec;
    spec.out_channels = static_cast<size_t>(shape[0]);
    spec.group_channels = static_cast<size_t>(shape[1]);
    spec.groups = static_cast<size_t>(groups);
    const auto strides = spatial(attributes, "strides", axes, 1, 1);
    const auto dilations = spatial(attributes, "dilations", axes, 1, 1);
    const auto pads = spatial(attributes, "pads", 2 * axes, 0, 0);
    // A 1-D convolution is a 2-D one over an image of height 1.
    for (size_t i = 0; i < axes; ++i) {
      const size_t axis = 2 - axes + i;
      if (shape[2 + i] > kLimit) throw InputError("shape is " + shape_text(shape));
      spec.kernel[axis] = shape[2 + i];
      spec.stride[axis] = strides[i];
      spec.dilation[axis] = dilations[i];
      spec.pad[axis] = pads[i];
      spec.pad[axis + 2] = pads[axes + i];
    }
    spec.activation = read_activation(attributes);
    const size_t columns = spec.group_channels * static_cast<size_t>(spec.kernel[0]) * static_cast<size_t>(spec.kernel[1]);
    SparseRows weight = unpack(attributes.weight(), spec.out_channels, columns, false);
    if (const auto folded = read_normalisation(attributes, spec.out_channels)) {
      for (size_t row = 0; row < weight.rows; ++row) {
        for (size_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
          weight.value[i] = static_cast<float>(folded.factor[row] * static_cast<double>(weight.value[i]));
        }
      }
      addend_.assign(folded.addend.begin(), folded.addend.end());
      bias_folded_ = static_cast<bool>(attributes.constant_if(kBias));
    }
    conv_ = std::make_unique<SparseConv>(spec, std::move(weight));
    const auto size = attributes.integers("input_size");
    if (!size.empty()) {
      const auto known = spatial(attributes, "input_size", axes, 1, 1);
      const int64_t height = axes == 2 ? known[0] : 1;
      conv_->prepare(height, known.back());
    }
  }

  void compute(const Call& call, Executor& executor) override {
    const ConvSpec& spec = conv_->spec();
    const Tensor x = call.input(0), bias = call.input(kBias), residual = call.input(kResidual);
    const int64_t channels = static_cast<int64_t>(spec.group_channels * spec.groups);
    if (x.shape.size() != rank_ || x.shape[1] != channels) {
      throw InputError("input has shape " + shape_text(x.shape) + ", expected rank " + std::to_string(rank_) + " and " +
                       std::to_string(channels) + " channels");
    }
    ConvCall c{};
    c.input = x.floats("input");
    c.batch = x.shape[0];
    c.height = rank_ == 4 ? x.shape[2] : 1;
    c.width = x.shape[rank_ - 1];
    const auto [height, width] = conv_->output_size(c.height, c.width);
    std::vector<int64_t> shape{c.batch, static_cast<int64_t>(spec.out_channels)};
    if (rank_ == 4) shape.push_back(height);
    shape.push_back(width);
    if (!addend_.empty()) {
      if (bias && !bias_folded_) throw InputError("a bias before a normalisation must be a constant of the model");
      c.bias = addend_.data();
    } else if (call.input(kNormalisation)) {
      throw InputError("scale must be a constant of the model");
    } else if (bias) {
      if (bias.shape != std::vector<int64_t>{shape[1]}) {
        throw InputError("bias has shape " + shape_text(bias.shape) + ", expected [" + std::to_string(shape[1]) + "]");
      }
      c.bias = bias.floats("bias");
    }
    if (residual) {
      if (residual.shape != shape) {
        throw InputError("residual has shape " + shape_text(residual.shape) + ", expected " + shape_text(shape));
      }
      c.residual = residual.floats("residual");
    }
    c.output = call.output(shape);
    conv_->run(c, executor);
  }

 private:
  size_t rank_ = 0;
  std::vector<float> addend_;  // instead of the bias where a normalisation was folded
  bool bias_folded_ = false;
  std::unique_ptr<SparseConv> conv_;
};

}  // namespace

Kernel* make_sparse_conv(const Attributes& attributes) { return new ConvKernel(attributes); }

}  // namespace sparsepack::ort
