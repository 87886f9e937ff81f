// The packed form: hand-made streams, refusals, and half precision over all its bit patterns.
#include <cstring>
#include <functional>
#include <string>

#include "core/sparse_rows.h"
#include "support.h"

using namespace sparsepack;

namespace {

void refuses(const char* what, const std::function<void()>& action, const char* text) {
  try {
    action();
  } catch (const InputError& error) {
    if (std::string(error.what()).find(text) != std::string::npos) return;
    std::printf("message: %s\n", error.what());
  }
  support::expect(false, what);
}

}  // namespace

int main() {
  // 2 x 300: weights at 0, 3, 299, 300 and 599.
  const std::vector<uint8_t> gaps{0, 2, 255, 40, 0, 255, 43};
  const std::vector<float> values{1, 2, 3, 4, 5};
  PackedWeights packed{gaps.data(), gaps.size(), values.data(), values.size(), ValueType::kFloat32, {}};
  const SparseRows rows = unpack(packed, 2, 300, false);
  support::expect(rows.row_start == std::vector<size_t>{0, 3, 5}, "row starts");
  support::expect(rows.column == std::vector<uint32_t>{0, 3, 299, 0, 299}, "columns");
  support::expect(rows.value == values, "values");
  const SparseRows turned = unpack(packed, 300, 2, true);
  support::expect(turned.nonzeros() == 5 && turned.row_start[1] == 2 && turned.value[1] == 4, "stored transposed");

  const int8_t codes[] = {10, -128, 127, 1, 0};
  PackedWeights coded{gaps.data(), gaps.size(), codes, 5, ValueType::kInt8, {0.5f, 2.0f}};
  support::expect(unpack(coded, 2, 300, false).value == std::vector<float>{5, -64, 63.5, 2, 0}, "a scale a row");

  refuses("short matrix", [&] { unpack(packed, 1, 300, false); }, "outside the 300");
  refuses("too few values", [&] { auto p = packed; p.value_count = 4; unpack(p, 2, 300, false); }, "more weights than the 4");
  refuses("too many values", [&] { auto p = packed; p.value_count = 6; unpack(p, 2, 300, false); }, "but 6 values");
  refuses("wrong scales", [&] { auto p = coded; p.scales.assign(3, 1.0f); unpack(p, 2, 300, false); }, "got 3");
  refuses("escapes past the end", [&] {
    const std::vector<uint8_t> run(9, 255);
    PackedWeights p{run.data(), run.size(), values.data(), 0, ValueType::kFloat32, {}};
    unpack(p, 2, 300, false);
  }, "past the end");
  refuses("a size that overflows", [&] { unpack(packed, SIZE_MAX / 2, 300, false); }, "too large");

  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double sign = bits & 0x8000 ? -1 : 1;
    const uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float got = half_to_float(static_cast<uint16_t>(bits));
    const double want = exponent ? std::ldexp(1024.0 + mantissa, static_cast<int>(exponent) - 25) : std::ldexp(mantissa, -24);
    const bool ok = exponent == 31 ? (mantissa ? std::isnan(got) : std::isinf(got) && (got < 0) == (sign < 0))
                                   : got == sign * want;
    if (!ok) support::expect(false, "half precision");
  }
  return support::finish("test_packed", 65548);
}
