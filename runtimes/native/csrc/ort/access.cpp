#include "access.h"

namespace sparsepack::ort {

Tensor describe(const Api* api, const Value* value) {
  Tensor tensor;
  tensor.value = value;
  ShapeInfo* info = nullptr;
  check(TensorShape::of(api)(value, &info));
  struct Release {
    const Api* api;
    ShapeInfo* info;
    ~Release() { ReleaseShape::of(api)(info); }
  } release{api, info};
  size_t rank = 0;
  check(ShapeElementType::of(api)(info, &tensor.type));
  check(ShapeRank::of(api)(info, &rank));
  tensor.shape.resize(rank);
  check(ShapeDimensions::of(api)(info, tensor.shape.data(), rank));
  check(TensorData::of(api)(const_cast<Value*>(value), &tensor.data));
  return tensor;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// The runtime reports a missing attribute as an error; every attribute read here has a default.
int64_t Attributes::integer(const char* name, int64_t missing) const {
  int64_t value = 0;
  if (Status* status = AttributeInt::of(api_)(info_, name, &value)) {
    ReleaseStatus::of(api_)(status);
    return missing;
  }
  return value;
}

float Attributes::number(const char* name, float missing) const {
  float value = 0;
  if (Status* status = AttributeFloat::of(api_)(info_, name, &value)) {
    ReleaseStatus::of(api_)(status);
    return missing;
  }
  return value;
}

std::string Attributes::text(const char* name, const char* missing) const {
  size_t size = 0;
  if (Status* status = AttributeString::of(api_)(info_, name, nullptr, &size)) {
    ReleaseStatus::of(api_)(status);
    return missing;
  }
  std::string value(size, '\0');
  check(AttributeString::of(api_)(info_, name, value.data(), &size));
  while (!value.empty() && value.back() == '\0') value.pop_back();
  return value;
}

std::vector<int64_t> Attributes::integers(const char* name) const {
  size_t size = 0;
  if (Status* status = AttributeInts::of(api_)(info_, name, nullptr, &size)) {
    ReleaseStatus::of(api_)(status);
    return {};
  }
  std::vector<int64_t> values(size);
  if (size) check(AttributeInts::of(api_)(info_, name, values.data(), &size));
  return values;
}

std::vector<float> Attributes::floats(const char* name) const {
  size_t size = 0;
  if (Status* status = AttributeFloats::of(api_)(info_, name, nullptr, &size)) {
    ReleaseStatus::of(api_)(status);
    return {};
  }
  std::vector<float> values(size);
  if (size) check(AttributeFloats::of(api_)(info_, name, values.data(), &size));
  return values;
}

Tensor Attributes::constant_if(size_t input) const {
  int is_constant = 0;
  const Value* value = nullptr;
  check(ConstantInput::of(api_)(info_, input, &is_constant, &value));
  return is_constant && value ? describe(api_, value) : Tensor{};
}

Tensor Attributes::constant(size_t input, const char* what) const {
  const Tensor found = constant_if(input);
  if (!found) throw InputError(std::string(what) + " must be a constant of the model");
  return found;
}

PackedWeights Attributes::weight() const {
  const Tensor gaps = constant(1, "gaps"), values = constant(2, "values");
  if (gaps.type != kUint8 || gaps.shape.size() != 1) throw InputError("gaps must be a list of uint8");
  if (values.shape.size() != 1) throw InputError("values must be a list, got shape " + shape_text(values.shape));
  PackedWeights packed;
  packed.gaps = static_cast<const uint8_t*>(gaps.data);
  packed.gap_count = gaps.count();
  packed.values = values.data;
  packed.value_count = values.count();
  packed.scales = floats("scales");
  switch (values.type) {
    case kFloat: packed.value_type = ValueType::kFloat32; break;
    case kFloat16: packed.value_type = ValueType::kFloat16; break;
    case kInt8: packed.value_type = ValueType::kInt8; break;
    default: throw InputError("values must be float32, float16 or int8");
  }
  return packed;
}

Tensor Call::input(size_t index) const {
  size_t count = 0;
  check(InputCount::of(api_)(context_, &count));
  if (index >= count) return {};
  const Value* value = nullptr;
  check(GetInput::of(api_)(context_, index, &value));
  return value ? describe(api_, value) : Tensor{};
}

float* Call::output(const std::vector<int64_t>& shape) const {
  Value* value = nullptr;
  check(GetOutput::of(api_)(context_, 0, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(TensorData::of(api_)(value, &data));
  return static_cast<float*>(data);
}

}  // namespace sparsepack::ort
