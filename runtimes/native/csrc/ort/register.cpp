// The library's only exported function: gives a session our operators.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "operators.h"
#include "sparsepack/ops.h"

namespace sparsepack::ort {

ActivationSpec read_activation(const Attributes& attributes) {
  const std::string name = attributes.text("activation", "");
  const auto params = attributes.floats("activation_params");
  const auto with = [&](Activation kind, size_t count, float alpha, float beta) {
    if (!params.empty() && params.size() != count) {
      throw InputError(name + " takes " + std::to_string(count) + " activation_params, got " + std::to_string(params.size()));
    }
    if (params.size() > 0) alpha = params[0];
    if (params.size() > 1) beta = params[1];
    return ActivationSpec{kind, alpha, beta};
  };
  if (name.empty()) return with(Activation::kNone, 0, 0, 0);
  if (name == "Relu") return with(Activation::kClamp, 0, 0.0f, INFINITY);
  if (name == "Clip") return with(Activation::kClamp, 2, -INFINITY, INFINITY);
  if (name == "LeakyRelu") return with(Activation::kLeakyRelu, 1, 0.01f, 0);
  if (name == "HardSwish") return with(Activation::kHardSwish, 2, 1.0f / 6.0f, 0.5f);
  if (name == "Silu") return with(Activation::kSilu, 0, 0, 0);
  if (name == "Gelu") return with(Activation::kGelu, 0, 0, 0);
  if (name == "GeluTanh") return with(Activation::kGeluTanh, 0, 0, 0);
  throw InputError("unknown activation '" + name + "'");
}

namespace {

// One operator; the runtime hands the first member back to every callback.
struct Operator {
  CustomOp op;
  const char* name;
  MakeKernel make;
  size_t inputs;
};

struct Node {
  const Api* api;
  const char* name;
  std::unique_ptr<Kernel> kernel;
};

const Operator& self(const CustomOp* op) { return *reinterpret_cast<const Operator*>(op); }

Status* create(const CustomOp* op, const Api* api, const KernelInfo* info, void** node) {
  return guarded(api, self(op).name, [&] {
    std::unique_ptr<Kernel> kernel(self(op).make(Attributes(api, info)));
    *node = new Node{api, self(op).name, std::move(kernel)};
  });
}

Status* compute(void* node, KernelContext* context) {
  const Node& n = *static_cast<Node*>(node);
  return guarded(n.api, n.name, [&] {
    SessionExecutor executor(n.api, context);
    n.kernel->compute(Call(n.api, context), executor);
  });
}

Operator make_operator(const char* name, MakeKernel make, size_t inputs) {
  Operator o{};
  o.inputs = inputs;
  o.name = name;
  o.make = make;
  o.op.name = [](const CustomOp* op) { return self(op).name; };
  o.op.provider = [](const CustomOp*) -> const char* { return "CPUExecutionProvider"; };
  // Inputs: activations, gaps, values (of several types), bias, residual, and a normalisation's four.
  o.op.input_count = [](const CustomOp* op) { return self(op).inputs; };
  o.op.input_type = [](const CustomOp*, size_t i) { return i == 1 ? kUint8 : i == 2 ? kUndefined : kFloat; };
  o.op.input_characteristic = [](const CustomOp*, size_t i) { return i < 3 ? kRequired : kOptional; };
  o.op.input_memory_type = [](const CustomOp*, size_t) { return 0; };
  o.op.output_count = [](const CustomOp*) -> size_t { return 1; };
  o.op.output_type = [](const CustomOp*, size_t) { return kFloat; };
  o.op.output_characteristic = [](const CustomOp*, size_t) { return kRequired; };
  o.op.variadic_input_min_arity = o.op.variadic_input_homogeneity = [](const CustomOp*) { return 0; };
  o.op.variadic_output_min_arity = o.op.variadic_output_homogeneity = [](const CustomOp*) { return 0; };
  o.op.create_kernel_v2 = create;
  o.op.compute_v2 = compute;
  o.op.destroy = [](void* node) { delete static_cast<Node*>(node); };
  o.op.start_version = [](const CustomOp*) { return 1; };
  o.op.end_version = [](const CustomOp*) { return INT32_MAX; };
  return o;
}

// The newest version of the ABI that both sides know; 0 where the runtime is too old. Asking for
// too new a version would make the runtime print a complaint, so its version text decides.
uint32_t common_api(const ApiBase* base) {
  unsigned major = 0, minor = 0;
  if (std::sscanf(base->get_version(), "%u.%u", &major, &minor) != 2 || major < 1) return 0;
  const uint32_t theirs = major > 1 ? kNewestApi : minor;
  return theirs < kOldestApi ? 0 : theirs < kNewestApi ? theirs : kNewestApi;
}

}  // namespace
}  // namespace sparsepack::ort

extern "C" SPARSEPACK_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace sparsepack::ort;
  // Sessions keep pointers to the operators, so these live as long as the library.
  static Operator conv = make_operator("SparseConv", make_sparse_conv, 9);
  static Operator matmul = make_operator("SparseMatMul", make_sparse_matmul, 5);
  const auto* their_base = reinterpret_cast<const ApiBase*>(base);
  const uint32_t version = common_api(their_base);
  if (!version) {
    // Only the first functions, unchanged since the beginning, are needed to say so.
    const Api* oldest = their_base->get_api(1);
    if (!oldest) return nullptr;
    const std::string text = std::string("sparsepack needs ONNX Runtime 1.17 or newer, this is ") + their_base->get_version();
    return reinterpret_cast<OrtStatus*>(CreateStatus::of(oldest)(kNotImplemented, text.c_str()));
  }
  const Api* api = their_base->get_api(version);
  conv.op.version = matmul.op.version = version;
  return reinterpret_cast<OrtStatus*>(guarded(api, "RegisterCustomOps", [&] {
    // Sessions keep using the domain and nobody else frees it, so all of them share one.
    static std::mutex mutex;
    static Domain* domain = nullptr;
    std::lock_guard<std::mutex> lock(mutex);
    if (!domain) {
      Domain* fresh = nullptr;
      check(CreateDomain::of(api)("sparsepack", &fresh));
      check(DomainAdd::of(api)(fresh, &conv.op));
      check(DomainAdd::of(api)(fresh, &matmul.op));
      domain = fresh;
    }
    check(AddDomain::of(api)(reinterpret_cast<SessionOptions*>(options), domain));
  }));
}

extern "C" SPARSEPACK_EXPORT const char* sparsepack_instruction_set(void) { return sparsepack::kernels().name; }
