// Opens a model written by `--to onnx-sparse` through a dlopened ONNX Runtime and runs it once on
// ones:   run_model libonnxruntime.so.1 libsparsepack_ops.so model.onnx 1 3 224 224
//
// With ONNX Runtime's own header this is shorter; here its C functions are called by slot, so that
// the example builds with nothing but a compiler.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

struct Base {
  void** (*get_api)(uint32_t);
  const char* (*version)();
};
void** api;

// Calls the function in a slot; every function used here returns a status, null for success.
template <class... Arguments>
void call(int slot, Arguments... arguments) {
  void* status = reinterpret_cast<void* (*)(Arguments...)>(api[slot])(arguments...);
  if (!status) return;
  std::fprintf(stderr, "%s\n", reinterpret_cast<const char* (*)(const void*)>(api[2])(status));
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return std::fprintf(stderr, "usage: run_model RUNTIME OPERATORS MODEL DIMENSION...\n"), 2;
  void* runtime = dlopen(argv[1], RTLD_NOW);
  void* operators = dlopen(argv[2], RTLD_NOW);
  if (!runtime || !operators) return std::fprintf(stderr, "%s\n", dlerror()), 1;
  const auto* base = reinterpret_cast<const Base* (*)()>(dlsym(runtime, "OrtGetApiBase"))();
  api = base->get_api(17);
  if (!api) return std::fprintf(stderr, "ONNX Runtime %s is too old\n", base->version()), 1;

  void *environment, *options, *session, *memory, *input, *output = nullptr;
  call(3, 3, "example", &environment);  // CreateEnv, warnings off
  call(10, &options);                   // CreateSessionOptions
  auto add = reinterpret_cast<void* (*)(void*, const void*)>(dlsym(operators, "RegisterCustomOps"));
  if (add(options, base)) return std::fprintf(stderr, "the operators were refused\n"), 1;
  call(7, environment, static_cast<const char*>(argv[3]), options, &session);  // CreateSession

  std::vector<int64_t> shape;
  size_t count = 1;
  for (int i = 4; i < argc; ++i) shape.push_back(std::atoll(argv[i])), count *= static_cast<size_t>(shape.back());
  std::vector<float> values(count, 1.0f);
  call(69, 1, 0, &memory);  // CreateCpuMemoryInfo
  call(49, memory, static_cast<void*>(values.data()), count * sizeof(float), shape.data(), shape.size(), 1, &input);
  const char *in_names[] = {"input"}, *out_names[] = {"output"};
  call(9, session, nullptr, in_names, &input, size_t{1}, out_names, size_t{1}, &output);  // Run
  float* result;
  call(51, output, reinterpret_cast<void**>(&result));  // GetTensorMutableData
  for (int i = 0; i < 4; ++i) std::printf("%.6g ", static_cast<double>(result[i]));
  std::printf("(ONNX Runtime %s)\n", base->version());
}
