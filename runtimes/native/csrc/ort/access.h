// Reading attributes and tensors, with errors as exceptions and everything released.
#pragma once

#include <new>
#include <string>
#include <vector>

#include "abi.h"
#include "core/parallel.h"
#include "core/sparse_rows.h"

namespace sparsepack::ort {

// A failure that the runtime itself reported; carries its status on.
struct RuntimeFailure {
  Status* status;
};

inline void check(Status* status) {
  if (status) throw RuntimeFailure{status};
}

// Runs body and turns whatever it throws into a status: nothing may unwind into the runtime.
template <class Body>
Status* guarded(const Api* api, const char* op, Body body) noexcept {
  const auto fail = [&](ErrorCode code, const char* text) {
    return CreateStatus::of(api)(code, (std::string("sparsepack::") + op + ": " + text).c_str());
  };
  try {
    body();
    return nullptr;
  } catch (const RuntimeFailure& failure) {
    return failure.status;
  } catch (const InputError& error) {
    return fail(kInvalidArgument, error.what());
  } catch (const std::bad_alloc&) {
    return fail(kRuntimeException, "out of memory");
  } catch (const std::exception& error) {
    return fail(kRuntimeException, error.what());
  }
}

struct Tensor {
  const Value* value = nullptr;
  ElementType type = kUndefined;
  std::vector<int64_t> shape;
  void* data = nullptr;

  explicit operator bool() const { return value != nullptr; }
  size_t count() const {
    size_t n = 1;
    for (int64_t d : shape) n *= static_cast<size_t>(d);
    return n;
  }
  const float* floats(const char* what) const {
    if (type != kFloat) throw InputError(std::string(what) + " must be float32");
    return static_cast<const float*>(data);
  }
};

Tensor describe(const Api* api, const Value* value);
std::string shape_text(const std::vector<int64_t>& shape);

class Attributes {
 public:
  Attributes(const Api* api, const KernelInfo* info) : api_(api), info_(info) {}
  int64_t integer(const char* name, int64_t missing) const;
  float number(const char* name, float missing) const;
  std::string text(const char* name, const char* missing) const;
  std::vector<int64_t> integers(const char* name) const;  // empty where missing
  std::vector<float> floats(const char* name) const;
  Tensor constant(size_t input, const char* what) const;  // throws where the input is not constant
  Tensor constant_if(size_t input) const;                 // false where it is left out or not constant
  // The weight in inputs 1 (gaps) and 2 (values); points into the runtime's memory.
  PackedWeights weight() const;

 private:
  const Api* api_;
  const KernelInfo* info_;
};

class Call {
 public:
  Call(const Api* api, KernelContext* context) : api_(api), context_(context) {}
  Tensor input(size_t index) const;  // false where left out
  float* output(const std::vector<int64_t>& shape) const;

 private:
  const Api* api_;
  KernelContext* context_;
};

// The session's own threads.
class SessionExecutor final : public Executor {
 public:
  SessionExecutor(const Api* api, const KernelContext* context) : api_(api), context_(context) {}
  void run(void (*body)(void*, size_t), size_t count, void* user) override {
    check(ParallelFor::of(api_)(context_, body, count, 0, user));
  }

 private:
  const Api* api_;
  const KernelContext* context_;
};

}  // namespace sparsepack::ort
