// The part of ONNX Runtime's C ABI that is used here, in our own words.
//
// The ABI only ever grows at its end: a function's slot and a structure member's offset never
// change once released, so declaring what we call is enough for every later runtime. Nothing of
// ONNX Runtime is needed to build.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsepack::ort {

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct ShapeInfo;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2, kRuntimeException = 6, kNotImplemented = 9 };
enum ElementType : int { kUndefined = 0, kFloat = 1, kUint8 = 2, kInt8 = 3, kFloat16 = 10 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };

// The function table. Slots are indices into it.
using Slot = void (*)();
struct Api {
  Slot slots[1];
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

// An operator as the runtime calls it; filled in by us. `version` says which members exist.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  ElementType (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  ElementType (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute)(void*, KernelContext*);
  void (*destroy)(void*);
  Characteristic (*input_characteristic)(const CustomOp*, size_t);
  Characteristic (*output_characteristic)(const CustomOp*, size_t);
  int (*input_memory_type)(const CustomOp*, size_t);
  int (*variadic_input_min_arity)(const CustomOp*);
  int (*variadic_input_homogeneity)(const CustomOp*);
  int (*variadic_output_min_arity)(const CustomOp*);
  int (*variadic_output_homogeneity)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*compute_v2)(void*, KernelContext*);
  Status* (*infer_output_shape)(const CustomOp*, void*);
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
  size_t (*may_inplace)(int**, int**);
  void (*release_may_inplace)(int*, int*);
  size_t (*alias_map)(int**, int**);
  void (*release_alias_map)(int*, int*);
};
static_assert(sizeof(void*) != 8 || (offsetof(CustomOp, create_kernel_v2) == 136 && sizeof(CustomOp) == 208),
              "the runtime reads this structure by offset");

// Function signatures with their slots.
template <int S, class F>
struct Entry {
  static F of(const Api* api) { return reinterpret_cast<F>(api->slots[S]); }
};
using CreateStatus = Entry<0, Status* (*)(ErrorCode, const char*)>;
using GetErrorMessage = Entry<2, const char* (*)(const Status*)>;
using CreateDomain = Entry<26, Status* (*)(const char*, Domain**)>;
using DomainAdd = Entry<27, Status* (*)(Domain*, const CustomOp*)>;
using AddDomain = Entry<28, Status* (*)(SessionOptions*, Domain*)>;
using TensorData = Entry<51, Status* (*)(Value*, void**)>;
using ShapeElementType = Entry<60, Status* (*)(const ShapeInfo*, ElementType*)>;
using ShapeRank = Entry<61, Status* (*)(const ShapeInfo*, size_t*)>;
using ShapeDimensions = Entry<62, Status* (*)(const ShapeInfo*, int64_t*, size_t)>;
using TensorShape = Entry<65, Status* (*)(const Value*, ShapeInfo**)>;
using AttributeFloat = Entry<85, Status* (*)(const KernelInfo*, const char*, float*)>;
using AttributeInt = Entry<86, Status* (*)(const KernelInfo*, const char*, int64_t*)>;
using AttributeString = Entry<87, Status* (*)(const KernelInfo*, const char*, char*, size_t*)>;
using InputCount = Entry<88, Status* (*)(const KernelContext*, size_t*)>;
using GetInput = Entry<90, Status* (*)(const KernelContext*, size_t, const Value**)>;
using GetOutput = Entry<91, Status* (*)(KernelContext*, size_t, const int64_t*, size_t, Value**)>;
using ReleaseStatus = Entry<93, void (*)(Status*)>;
using ReleaseShape = Entry<99, void (*)(ShapeInfo*)>;
using ReleaseDomain = Entry<101, void (*)(Domain*)>;
using AttributeFloats = Entry<162, Status* (*)(const KernelInfo*, const char*, float*, size_t*)>;
using AttributeInts = Entry<163, Status* (*)(const KernelInfo*, const char*, int64_t*, size_t*)>;
using ConstantInput = Entry<249, Status* (*)(const KernelInfo*, size_t, int*, const Value**)>;
using ParallelFor = Entry<274, Status* (*)(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*)>;

constexpr uint32_t kOldestApi = 17;  // the first with ParallelFor for custom operators
constexpr uint32_t kNewestApi = 24;  // nothing later is used

}  // namespace sparsepack::ort
