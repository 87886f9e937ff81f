#include <memory>
#include <mutex>
#include <utility>

#include "core/conv.h"
#include "core/linear.h"
#include "operators.h"

namespace sparsepack::ort {
namespace {

// A weight as its operator stores it, outputs x inputs or the reverse; rows of the result are outputs.
SparseRows read_weight(const Attributes& attributes, bool rows_are_outputs) {
  const auto shape = attributes.integers("shape");
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || shape[0] > INT32_MAX || shape[1] > INT32_MAX) {
    throw InputError("shape must be two positive values, got " + shape_text(shape));
  }
  const auto outputs = static_cast<size_t>(shape[rows_are_outputs ? 0 : 1]);
  const auto inputs = static_cast<size_t>(shape[rows_are_outputs ? 1 : 0]);
  return unpack(attributes.weight(), outputs, inputs, !rows_are_outputs);
}

// A bias or a residual; null where it is left out.
const float* read_addend(const Tensor& tensor, const char* name, const std::vector<int64_t>& shape) {
  if (!tensor) return nullptr;
  if (tensor.shape != shape) {
    throw InputError(std::string(name) + " has shape " + shape_text(tensor.shape) + ", expected " + shape_text(shape));
  }
  return tensor.floats(name);
}

// Y = X W: features of a token side by side, or, with transA and transY, tokens of a feature.
class MatMulKernel final : public Kernel {
 public:
  // As in Gemm: transA says that the activations are inputs x tokens, transB that the weight is outputs x inputs.
  explicit MatMulKernel(const Attributes& attributes)
      : linear_(read_weight(attributes, attributes.integer("transB", 0) != 0), read_activation(attributes)),
        input_by_feature_(attributes.integer("transA", 0) != 0),
        output_by_feature_(attributes.integer("transY", 0) != 0) {}

  void compute(const Call& call, Executor& executor) override {
    const Tensor x = call.input(0);
    const auto inputs = static_cast<int64_t>(linear_.inputs()), outputs = static_cast<int64_t>(linear_.outputs());
    const size_t rank = x.shape.size(), feature = input_by_feature_ ? 2 : 1;  // from the end
    if (rank < feature || x.shape[rank - feature] != inputs) {
      throw InputError("input has shape " + shape_text(x.shape) + ", expected a last dimension " +
                       (input_by_feature_ ? "but one of " : "of ") + std::to_string(inputs));
    }
    const bool matrices = input_by_feature_ || output_by_feature_;
    if (matrices && rank < 2) throw InputError("input has shape " + shape_text(x.shape) + ", expected two dimensions or more");
    std::vector<int64_t> shape = x.shape;
    shape[rank - feature] = outputs;
    if (input_by_feature_ != output_by_feature_) std::swap(shape[rank - 1], shape[rank - 2]);
    LinearCall c{};
    c.input = x.floats("input");
    c.tokens = matrices ? static_cast<size_t>(x.shape[rank - (input_by_feature_ ? 1 : 2)]) : x.count() / linear_.inputs();
    c.matrices = c.tokens ? x.count() / linear_.inputs() / c.tokens : 0;
    c.bias = read_addend(call.input(3), "bias", {outputs});
    c.residual = read_addend(call.input(4), "residual", shape);
    c.output = call.output(shape);
    c.input_by_feature = input_by_feature_;
    c.output_by_feature = output_by_feature_;
    linear_.run(c, executor);
  }

 private:
  SparseLinear linear_;
  bool input_by_feature_, output_by_feature_;
};

// Y = W X: a feature's columns lie side by side, as the pixels of a 1x1 convolution do, and so need no transposing.
class LeftMatMulKernel final : public Kernel {
 public:
  explicit LeftMatMulKernel(const Attributes& attributes) {
    if (attributes.integer("transB", 0) != 0) throw InputError("with left, the weight's orientation is transA, not transB");
    if (attributes.integer("transY", 0) != 0) throw InputError("transY is for weights on the right");
    SparseRows weight = read_weight(attributes, attributes.integer("transA", 0) == 0);
    ConvSpec spec;
    spec.out_channels = weight.rows;
    spec.group_channels = weight.columns;
    spec.activation = read_activation(attributes);
    conv_ = std::make_unique<SparseConv>(spec, std::move(weight));
    const auto size = attributes.integers("input_size");
    if (size.size() > 1 || (!size.empty() && (size[0] < 1 || size[0] > INT32_MAX))) {
      throw InputError("input_size must be one positive value, got " + shape_text(size));
    }
    if (!size.empty() && size[0] > 1) conv_->prepare(1, size[0]);
  }

  void compute(const Call& call, Executor& executor) override {
    const Tensor x = call.input(0);
    const auto inputs = static_cast<int64_t>(conv_->spec().group_channels);
    const auto outputs = static_cast<int64_t>(conv_->spec().out_channels);
    const size_t rank = x.shape.size();
    if (rank < 2 || x.shape[rank - 2] != inputs) {
      throw InputError("input has shape " + shape_text(x.shape) + ", expected a last dimension but one of " +
                       std::to_string(inputs));
    }
    std::vector<int64_t> shape = x.shape;
    shape[rank - 2] = outputs;
    const float* bias = read_addend(call.input(3), "bias", {outputs, 1});
    const float* residual = read_addend(call.input(4), "residual", shape);
    const float* input = x.floats("input");
    float* output = call.output(shape);
    const int64_t columns = shape[rank - 1];
    if (x.count() == 0) return;
    const size_t matrices = x.count() / static_cast<size_t>(inputs * columns);
    if (columns == 1) {
      // Single columns are tokens; their layout of the weight is made when the first is met.
      std::call_once(once_, [this] { linear_ = std::make_unique<SparseLinear>(conv_->weight(), conv_->spec().activation); });
      return linear_->run({input, matrices, bias, residual, output}, executor);
    }
    conv_->run({input, static_cast<int64_t>(matrices), 1, columns, bias, residual, output}, executor);
  }

 private:
  std::unique_ptr<SparseConv> conv_;
  std::once_flag once_;
  std::unique_ptr<SparseLinear> linear_;
};

}  // namespace

Kernel* make_sparse_matmul(const Attributes& attributes) {
  if (attributes.integer("left", 0) != 0) return new LeftMatMulKernel(attributes);
  return new MatMulKernel(attributes);
}

}  // namespace sparsepack::ort
