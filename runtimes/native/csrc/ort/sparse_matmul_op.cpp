#include <memory>

#include "core/linear.h"
#include "operators.h"

namespace sparsepack::ort {
namespace {

class MatMulKernel final : public Kernel {
 public:
  explicit MatMulKernel(const Attributes& attributes) {
    const auto shape = attributes.integers("shape");
    if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || shape[0] > INT32_MAX || shape[1] > INT32_MAX) {
      throw InputError("shape must be two positive values, got " + shape_text(shape));
    }
    // As in Gemm: transB says that the weight is outputs x inputs.
    const bool rows_are_outputs = attributes.integer("transB", 0) != 0;
    const auto outputs = static_cast<size_t>(shape[rows_are_outputs ? 0 : 1]);
    const auto inputs = static_cast<size_t>(shape[rows_are_outputs ? 1 : 0]);
    linear_ = std::make_unique<SparseLinear>(unpack(attributes.weight(), outputs, inputs, !rows_are_outputs),
                                             read_activation(attributes));
  }

  void compute(const Call& call, Executor& executor) override {
    const Tensor x = call.input(0), bias = call.input(3), residual = call.input(4);
    const auto inputs = static_cast<int64_t>(linear_->inputs()), outputs = static_cast<int64_t>(linear_->outputs());
    if (x.shape.empty() || x.shape.back() != inputs) {
      throw InputError("input has shape " + shape_text(x.shape) + ", expected a last dimension of " + std::to_string(inputs));
    }
    std::vector<int64_t> shape = x.shape;
    shape.back() = outputs;
    LinearCall c{};
    c.input = x.floats("input");
    c.tokens = x.count() / linear_->inputs();
    if (bias) {
      if (bias.shape != std::vector<int64_t>{outputs}) {
        throw InputError("bias has shape " + shape_text(bias.shape) + ", expected [" + std::to_string(outputs) + "]");
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
    linear_->run(c, executor);
  }

 private:
  std::unique_ptr<SparseLinear> linear_;
};

}  // namespace

Kernel* make_sparse_matmul(const Attributes& attributes) { return new MatMulKernel(attributes); }

}  // namespace sparsepack::ort
