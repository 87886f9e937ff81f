#include "sparse_rows.h"

#include <cstring>

namespace sparsepack {

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  uint32_t exponent = (bits >> 10) & 0x1fu;
  uint32_t mantissa = bits & 0x3ffu;
  uint32_t word;
  if (exponent == 31) {
    word = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0) {
    word = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else if (mantissa == 0) {
    word = sign;
  } else {
    exponent = 113;
    while (!(mantissa & 0x400u)) {
      mantissa <<= 1;
      --exponent;
    }
    word = sign | (exponent << 23) | ((mantissa & 0x3ffu) << 13);
  }
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

namespace {

constexpr uint8_t kEscape = 255;

float value_at(const PackedWeights& packed, size_t index, size_t row) {
  switch (packed.value_type) {
    case ValueType::kFloat32: {
      float value;
      std::memcpy(&value, static_cast<const char*>(packed.values) + index * 4, 4);
      return value;
    }
    case ValueType::kFloat16: {
      uint16_t bits;
      std::memcpy(&bits, static_cast<const char*>(packed.values) + index * 2, 2);
      return half_to_float(bits);
    }
    case ValueType::kInt8: {
      const float scale = packed.scales.size() == 1 ? packed.scales[0] : packed.scales[row];
      return scale * static_cast<float>(static_cast<const int8_t*>(packed.values)[index]);
    }
  }
  return 0.0f;
}

// Calls visit(value index, flat position) for every kept weight.
template <class Visit>
void walk(const PackedWeights& packed, size_t total, Visit visit) {
  size_t position = 0;  // where a gap of zero would land
  size_t index = 0;
  for (size_t i = 0; i < packed.gap_count; ++i) {
    const uint8_t gap = packed.gaps[i];
    position += gap;
    if (gap == kEscape) {
      // A trailing run of escapes is allowed to point at the end, never past it.
      if (position > total) throw InputError("gaps run past the end of the weight");
      continue;
    }
    if (position >= total) {
      throw InputError("gap " + std::to_string(i) + " puts a weight at position " + std::to_string(position) +
                       ", outside the " + std::to_string(total) + " of the weight");
    }
    if (index >= packed.value_count) {
      throw InputError("gaps name more weights than the " + std::to_string(packed.value_count) + " values given");
    }
    visit(index++, position++);
  }
  if (index != packed.value_count) {
    throw InputError("gaps name " + std::to_string(index) + " weights, but " + std::to_string(packed.value_count) +
                     " values are given");
  }
}

}  // namespace

SparseRows unpack(const PackedWeights& packed, size_t rows, size_t columns, bool transposed) {
  constexpr size_t kMostRows = size_t{1} << 24;  // a mistake beyond, and its row starts would fill memory
  if (rows > kMostRows || columns > UINT32_MAX || (columns && rows > SIZE_MAX / columns / 8)) throw InputError("the weight is too large");
  if (packed.value_type == ValueType::kInt8 && packed.scales.size() != 1 && packed.scales.size() != rows) {
    throw InputError("int8 values need 1 or " + std::to_string(rows) + " scales, got " +
                     std::to_string(packed.scales.size()));
  }
  const size_t total = rows * columns;
  auto split = [&](size_t position, size_t& row, size_t& column) {
    row = transposed ? position % rows : position / columns;
    column = transposed ? position / rows : position % columns;
  };

  SparseRows out;
  out.rows = rows;
  out.columns = columns;
  out.row_start.assign(rows + 1, 0);
  size_t row, column;
  walk(packed, total, [&](size_t, size_t position) {
    split(position, row, column);
    ++out.row_start[row + 1];
  });
  for (size_t r = 0; r < rows; ++r) out.row_start[r + 1] += out.row_start[r];
  out.column.resize(packed.value_count);
  out.value.resize(packed.value_count);
  // Positions ascend, so each row's columns do too, whichever way the matrix is stored.
  std::vector<size_t> next(out.row_start.begin(), out.row_start.end() - 1);
  walk(packed, total, [&](size_t index, size_t position) {
    split(position, row, column);
    const size_t at = next[row]++;
    out.column[at] = static_cast<uint32_t>(column);
    out.value[at] = value_at(packed, index, row);
  });
  return out;
}

}  // namespace sparsepack
