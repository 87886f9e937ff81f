// What the kernel tests share: a generator, threads, and a comparison that explains itself.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "core/parallel.h"
#include "core/sparse_rows.h"
#include "kernels/kernel.h"

namespace support {

inline int failures = 0;

class ThreadExecutor final : public sparsepack::Executor {
 public:
  explicit ThreadExecutor(size_t threads) : threads_(threads) {}
  void run(void (*body)(void*, size_t), size_t count, void* user) override {
    std::vector<std::thread> pool;
    for (size_t t = 0; t < threads_; ++t) {
      pool.emplace_back([=] {
        for (size_t i = t; i < count; i += threads_) body(user, i);
      });
    }
    for (auto& thread : pool) thread.join();
  }

 private:
  size_t threads_;
};

struct Random {
  std::mt19937_64 engine{7};
  int64_t in(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine); }
  double unit() { return std::uniform_real_distribution<double>(0, 1)(engine); }
  std::vector<float> values(size_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> out(count);
    for (float& v : out) v = normal(engine);
    return out;
  }
  sparsepack::SparseRows sparse(size_t rows, size_t columns, double density) {
    sparsepack::SparseRows out;
    out.rows = rows;
    out.columns = columns;
    out.row_start.push_back(0);
    std::normal_distribution<float> normal;
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < columns; ++c) {
        if (unit() < density) {
          out.column.push_back(static_cast<uint32_t>(c));
          out.value.push_back(normal(engine));
        }
      }
      out.row_start.push_back(out.value.size());
    }
    return out;
  }
};

// `scale` holds, for each value, the sum of magnitudes that rounding errors are relative to.
inline void expect_close(const char* what, const std::vector<float>& got, const std::vector<double>& want,
                         const std::vector<double>& scale) {
  double worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::fabs(got[i] - want[i]) / (1e-3 + scale[i]);
    if (!(error <= worst)) worst = error, where = i;
  }
  if (!(worst < 2e-6)) {
    ++failures;
    std::printf("FAIL %s: at %zu of %zu got %.9g, want %.9g (error %.3g)\n", what, where, want.size(), got[where],
                want[where], worst);
  }
}

inline void expect(bool ok, const char* what) {
  if (!ok) {
    ++failures;
    std::printf("FAIL %s\n", what);
  }
}

inline int finish(const char* name, int cases) {
  std::printf("%s: %d cases, %d failures\n", name, cases, failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

inline double activate(double v, const sparsepack::ActivationSpec& spec) {
  using sparsepack::Activation;
  switch (spec.kind) {
    case Activation::kNone: return v;
    case Activation::kClamp: return std::fmin(std::fmax(v, spec.alpha), spec.beta);
    case Activation::kLeakyRelu: return v < 0 ? v * spec.alpha : v;
    case Activation::kHardSwish: return v * std::fmin(std::fmax(v * spec.alpha + spec.beta, 0), 1);
    case Activation::kSilu: return v / (1 + std::exp(-v));
    case Activation::kGelu: return 0.5 * v * (1 + std::erf(v * std::sqrt(0.5)));
    case Activation::kGeluTanh: return 0.5 * v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
  }
  return v;
}

}  // namespace support
