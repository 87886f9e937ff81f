// A sparse matrix by rows, and its packed form: one byte a gap and one value a kept weight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace sparsepack {

// What a caller can get wrong; the operators turn it into a runtime status with this text.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct SparseRows {
  size_t rows = 0;
  size_t columns = 0;
  std::vector<size_t> row_start;  // rows + 1 positions into the two arrays below
  std::vector<uint32_t> column;   // ascending within a row
  std::vector<float> value;

  size_t nonzeros() const { return value.size(); }
};

enum class ValueType { kFloat32, kFloat16, kInt8 };

// Gaps: the flat row-major positions of kept weights, each as the distance from the one before
// (the first from -1) minus one; the byte 255 means "go 255 positions further, no value here".
struct PackedWeights {
  const uint8_t* gaps = nullptr;
  size_t gap_count = 0;
  const void* values = nullptr;
  size_t value_count = 0;
  ValueType value_type = ValueType::kFloat32;
  std::vector<float> scales;  // int8 only: one, or one a row
};

// Unpacks into rows; `transposed` says that the file holds columns x rows instead.
// Throws InputError when counts disagree or a position falls outside the matrix.
SparseRows unpack(const PackedWeights& packed, size_t rows, size_t columns, bool transposed);

float half_to_float(uint16_t bits);

}  // namespace sparsepack
