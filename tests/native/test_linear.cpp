// Sparse linear layers against a float64 reference over generated shapes.
#include <cstring>

#include "core/linear.h"
#include "support.h"

using namespace sparsepack;

namespace {

// Each of `matrices` matrices of rows x columns, turned round.
std::vector<float> turned(const std::vector<float>& values, size_t matrices, size_t rows, size_t columns) {
  std::vector<float> out(values.size());
  for (size_t m = 0; m < matrices; ++m) {
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < columns; ++c) out[(m * columns + c) * rows + r] = values[(m * rows + r) * columns + c];
    }
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  support::Random random;
  const int cases = argc > 1 ? std::atoi(argv[1]) : 120;
  const double densities[] = {0, 0.02, 0.1, 0.3, 1};
  for (int i = 0; i < cases; ++i) {
    const size_t tokens = static_cast<size_t>(random.in(1, i % 3 == 1 ? 20 : i % 5 ? 70 : 600));
    const size_t inputs = static_cast<size_t>(random.in(1, 400)), outputs = static_cast<size_t>(random.in(1, 300));
    const SparseRows weight = random.sparse(outputs, inputs, densities[i % 5]);
    const ActivationSpec activation{static_cast<Activation>(random.in(0, 6)), 0.2f, 0.7f};
    const SparseLinear linear(weight, activation);
    const auto input = random.values(tokens * inputs), bias = random.values(outputs);
    const auto residual = random.values(tokens * outputs);
    const bool with_bias = random.in(0, 1), with_residual = random.in(0, 1);
    std::vector<float> got(tokens * outputs, NAN), threaded(got);
    LinearCall call{input.data(), tokens, with_bias ? bias.data() : nullptr,
                    with_residual ? residual.data() : nullptr, got.data()};
    SerialExecutor serial;
    linear.run(call, serial);
    call.output = threaded.data();
    support::ThreadExecutor threads(3);
    linear.run(call, threads);
    support::expect(!std::memcmp(got.data(), threaded.data(), got.size() * 4), "same bits from one thread and three");

    // A token's result does not depend on what else is in the batch.
    const size_t chosen = static_cast<size_t>(random.in(0, static_cast<int64_t>(tokens) - 1)), at = chosen * outputs;
    std::vector<float> alone(outputs, NAN);
    linear.run({input.data() + chosen * inputs, 1, call.bias, with_residual ? residual.data() + at : nullptr, alone.data()},
               serial);
    support::expect(!std::memcmp(got.data() + at, alone.data(), outputs * 4), "same bits from a token alone");

    // By feature, and cut into several matrices, the same products are the same.
    const size_t parts = static_cast<size_t>(random.in(1, tokens < 3 ? 1 : 3)), each = tokens / parts;
    const size_t used = parts * each;
    for (int by = 0; by < 4; ++by) {
      const bool in = by & 1, out = by & 2;
      const std::vector<float> first(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(used * inputs));
      const std::vector<float> added(residual.begin(), residual.begin() + static_cast<std::ptrdiff_t>(used * outputs));
      const auto given = in ? turned(first, parts, each, inputs) : first;
      const auto addend = out ? turned(added, parts, each, outputs) : added;
      std::vector<float> found(used * outputs, NAN);
      linear.run({given.data(), each, call.bias, with_residual ? addend.data() : nullptr, found.data(), parts, in, out}, threads);
      if (out) found = turned(found, parts, outputs, each);
      support::expect(!std::memcmp(got.data(), found.data(), found.size() * 4), "same bits by token and by feature");
    }

    std::vector<double> want(got.size()), scale(got.size());
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t o = 0; o < outputs; ++o) {
        double sum = with_bias ? bias[o] : 0, magnitude = std::fabs(sum);
        for (size_t e = weight.row_start[o]; e < weight.row_start[o + 1]; ++e) {
          const double product = static_cast<double>(weight.value[e]) * input[t * inputs + weight.column[e]];
          sum += product;
          magnitude += std::fabs(product);
        }
        const size_t at = t * outputs + o;
        if (with_residual) sum += residual[at], magnitude += std::fabs(residual[at]);
        want[at] = support::activate(sum, activation);
        scale[at] = magnitude + std::fabs(want[at]);
      }
    }
    char name[120];
    std::snprintf(name, sizeof name, "linear %zu x %zu -> %zu act %d", tokens, inputs, outputs,
                  static_cast<int>(activation.kind));
    support::expect_close(name, got, want, scale);
  }
  return support::finish("test_linear", cases);
}
