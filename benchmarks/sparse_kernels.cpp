// The rate of the sparse kernels beside this core's own peak; sparse_kernels.py compiles and runs it.
//
// Prints one JSON object. Rates count 2 operations a kept weight and output pixel, nothing else; times are
// minima over many short runs of one thread. Arguments: the density, and a pattern that is timed in turns with an
// unstructured mask of the same density: N:M along the input channels, or RxC blocks of outputs x columns.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "core/conv_plan.h"

using namespace sparsepack;

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vector __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

template <class Body>
double best_of(int runs, Body body) {
  double best = 1e9;
  for (int r = 0; r < runs; ++r) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

// Operations a second of fused multiply-adds: 12 independent chains of registers, long enough to hide the latency.
constexpr int kChains = 12;

__attribute__((noinline)) float chains(int rounds) {
  Vector sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = Vector{} + static_cast<float>(i);  // alike, they would be computed once
  const Vector factor = Vector{} + 0.5f;
  for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + factor;
  }
  float total = 0;
  for (const Vector& sum : sums) total += sum[0];
  return total;
}

// The same with every factor loaded from memory, which the first-level cache holds.
__attribute__((noinline)) float chains_from(const float* from, size_t vectors, int rounds) {
  Vector sums[kChains] = {};
  const Vector factor = Vector{} + 0.5f;
  for (int round = 0; round < rounds; ++round) {
    for (size_t at = 0; at < vectors; at += kChains, from += kChains * kLanes) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) sums[i] += factor * *reinterpret_cast<const Vector*>(from + i * kLanes);
    }
    from -= vectors * kLanes;
  }
  float total = 0;
  for (const Vector& sum : sums) total += sum[0];
  return total;
}

double peak(const float* from) {
  constexpr int kRounds = 4000;
  constexpr size_t kVectors = 24 * kChains;  // 18 KiB where a vector has 64 bytes
  volatile float sink = 0;
  double seconds = 0, operations = 0;
  if (from) {
    seconds = best_of(300, [&] { sink = chains_from(from, kVectors, kRounds / 24); });
    operations = 2.0 * kLanes * static_cast<double>(kVectors) * (kRounds / 24);
  } else {
    seconds = best_of(300, [&] { sink = chains(kRounds); });
    operations = 2.0 * kLanes * kChains * kRounds;
  }
  return operations / seconds;
}

struct Layer {
  int64_t channels, outputs, kernel, stride, size;
};

struct Pattern {
  char kind = 'u';  // u: unstructured, n: first of every second input channels, b: blocks of first x second
  size_t first = 1, second = 1;
};

Pattern read_pattern(const char* text) {
  Pattern pattern;
  char between = 0;
  if (std::sscanf(text, "%zu%c%zu", &pattern.first, &between, &pattern.second) != 3) return {};
  pattern.kind = between == ':' ? 'n' : 'b';
  return pattern;
}

SparseRows from_mask(const std::vector<char>& mask, size_t rows, size_t columns) {
  SparseRows weight;
  weight.rows = rows;
  weight.columns = columns;
  weight.row_start.push_back(0);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      if (!mask[r * columns + c]) continue;
      weight.column.push_back(static_cast<uint32_t>(c));
      weight.value.push_back(static_cast<float>((r * 31 + c * 17) % 97) / 97 - 0.5f);
    }
    weight.row_start.push_back(weight.value.size());
  }
  return weight;
}

// A weight of `taps` columns for every input channel, with a structured mask.
SparseRows draw(size_t rows, size_t columns, size_t taps, double density, const Pattern& pattern) {
  std::mt19937 engine(7);
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<char> mask(rows * columns);
  for (size_t r = 0; r < rows && pattern.kind == 'n'; ++r) {
    for (size_t tap = 0; tap < taps; ++tap) {
      for (size_t channel = 0; channel < columns / taps; channel += pattern.second) {
        std::vector<size_t> places(pattern.second);
        for (size_t i = 0; i < places.size(); ++i) places[i] = channel + i;
        std::shuffle(places.begin(), places.end(), engine);
        for (size_t i = 0; i < pattern.first; ++i) mask[r * columns + places[i] * taps + tap] = 1;
      }
    }
  }
  for (size_t r = 0; r < rows && pattern.kind == 'b'; r += pattern.first) {
    for (size_t c = 0; c < columns; c += pattern.second) {
      const char kept = unit(engine) < density;
      for (size_t i = 0; i < pattern.first * pattern.second; ++i) {
        const size_t row = r + i / pattern.second, column = c + i % pattern.second;
        if (row < rows && column < columns) mask[row * columns + column] = kept;
      }
    }
  }
  return from_mask(mask, rows, columns);
}

SparseRows draw(size_t rows, size_t columns, double density) {
  std::mt19937 engine(7);
  std::uniform_real_distribution<float> unit(0, 1);
  SparseRows weight;
  weight.rows = rows;
  weight.columns = columns;
  weight.row_start.push_back(0);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      if (unit(engine) >= density) continue;
      weight.column.push_back(static_cast<uint32_t>(c));
      weight.value.push_back(unit(engine) - 0.5f);
    }
    weight.row_start.push_back(weight.value.size());
  }
  return weight;
}

// The kernel alone over tiles whose activations are already copied, output included.
double inner_rate(const ConvPlan& plan, const ConvSpec& spec, size_t nonzeros, const float* input, float* output) {
  const Program& program = plan.programs[0];
  const bool windows = plan.mode == ConvMode::kWindows;
  Buffer copies, sums;
  copies.reserve(spec.group_channels * plan.channel_floats * sizeof(float));
  const Readable readable{input, input + spec.group_channels * static_cast<size_t>(plan.height * plan.width)};
  sums.reserve(spec.out_channels * plan.tile_floats * sizeof(float));
  double seconds = 0;
  for (const Tile& tile : plan.tiles) {
    const float* activations = input + tile.at;
    if (plan.packs()) {
      float* own = copies.floats();
      plan.pack(input, spec, tile, spec.group_channels, readable, own);
      activations = own;
    }
    seconds += best_of(30, [&] {
      for (size_t b = 0; b < program.block_count; ++b) {
        for (size_t group = 0; group < program.groups; ++group) {
          const Block& block = program.block(group, b);
          RowsCall rows{};
          rows.activations = activations + block.activations * kUnit;
          rows.entries = program.entries.data() + block.first_entry;
          rows.tasks = program.tasks.data() + block.first_task;
          rows.task_count = block.task_count;
          rows.first = b == 0;
          rows.scratch = sums.floats() + program.group_begin(group) * plan.tile_floats;
          rows.scratch_stride = plan.tile_floats;
          rows.out_stride = static_cast<size_t>(plan.out_height * plan.out_width);
          rows.out_step = windows ? static_cast<size_t>(plan.out_width) : kUnit;
          rows.unit_columns = static_cast<int>(tile.columns);
          rows.columns = static_cast<int>(tile.rows * tile.columns);
          rows.whole = !windows || tile.columns == kUnit ? rows.columns : 0;
          rows.clamp = true;
          rows.high = 1e30f;
          if (b + 1 == program.block_count) {
            rows.out = output + program.group_begin(group) * rows.out_stride + static_cast<size_t>(tile.at);
          }
          (windows ? plan.kernels.rows_narrow : plan.kernels.rows)[tile.units](rows);
        }
      }
    });
  }
  const double pixels = static_cast<double>(plan.out_height * plan.out_width);
  return 2.0 * static_cast<double>(nonzeros) * pixels / seconds;
}

}  // namespace

int main(int argc, char** argv) {
  const double density = argc > 1 ? std::atof(argv[1]) : 0.1;
  const Pattern pattern = argc > 2 ? read_pattern(argv[2]) : Pattern{};
  const Layer layers[] = {{64, 64, 1, 1, 56},    {64, 256, 1, 1, 56},  {256, 64, 1, 1, 56},   {512, 128, 1, 1, 28},
                          {128, 512, 1, 1, 28},  {1024, 256, 1, 1, 14}, {256, 1024, 1, 1, 14}, {2048, 512, 1, 1, 7},
                          {512, 2048, 1, 1, 7},  {64, 64, 3, 1, 56},   {128, 128, 3, 1, 28},  {256, 256, 3, 1, 14},
                          {512, 512, 3, 1, 7},   {128, 128, 3, 2, 56}, {256, 512, 1, 2, 56}};
  Buffer input, output;
  input.reserve(size_t{256} * 56 * 56 * 4 + 4096);
  output.reserve(size_t{256} * 56 * 56 * 4 + 4096);
  for (size_t i = 0; i < size_t{256} * 56 * 56; ++i) input.floats()[i] = static_cast<float>(i % 97) / 97 - 0.5f;
  const double top = peak(nullptr), near = peak(input.floats());
  std::printf("{\"instruction_set\": \"%s\", \"density\": %g, ", kernels().name, density);
  std::printf("\"peak_gflops\": %.1f, ", top / 1e9);
  std::printf("\"peak_from_l1_gflops\": %.1f, \"layers\": [", near / 1e9);
  bool first = true;
  for (const Layer& l : layers) {
    ConvSpec spec;
    spec.out_channels = static_cast<size_t>(l.outputs);
    spec.group_channels = static_cast<size_t>(l.channels);
    spec.kernel = {l.kernel, l.kernel};
    spec.stride = {l.stride, l.stride};
    const int64_t pad = l.kernel / 2;
    spec.pad = {pad, pad, pad, pad};
    spec.activation = {Activation::kClamp, 0, 1e30f};
    const size_t columns = spec.group_channels * static_cast<size_t>(l.kernel * l.kernel);
    const SparseRows weight = draw(spec.out_channels, columns, density);
    SparseConv conv(spec, weight);
    const auto [height, width] = conv.output_size(l.size, l.size);
    const ConvPlan plan(spec, weight, l.size, l.size, height, width, kernels());
    const double inner = inner_rate(plan, spec, weight.nonzeros(), input.floats(), output.floats());
    SerialExecutor serial;
    const ConvCall call{input.floats(), 1, l.size, l.size, nullptr, nullptr, output.floats()};
    double seconds = 1e9, structured = 1e9;
    if (pattern.kind == 'u') {
      seconds = best_of(60, [&] { conv.run(call, serial); });
    } else {
      const size_t taps = static_cast<size_t>(l.kernel * l.kernel);
      const SparseRows other = draw(spec.out_channels, columns, taps, density, pattern);
      const double share = static_cast<double>(other.nonzeros()) / static_cast<double>(weight.nonzeros());
      SparseConv against(spec, other);
      for (int turn = 0; turn < 60; ++turn) {
        seconds = std::min(seconds, best_of(1, [&] { conv.run(call, serial); }));
        // For each kept weight: masks drawn at random do not keep exactly as many.
        structured = std::min(structured, best_of(1, [&] { against.run(call, serial); }) / share);
      }
    }
    const double whole = 2.0 * static_cast<double>(weight.nonzeros()) * static_cast<double>(height * width) / seconds;
    std::printf("%s{\"channels\": %ld, \"outputs\": %ld, ", first ? "" : ", ", static_cast<long>(l.channels),
                static_cast<long>(l.outputs));
    std::printf("\"kernel\": %ld, ", static_cast<long>(l.kernel));
    std::printf("\"stride\": %ld, \"out_size\": %ld, \"layer_us\": %.1f, ", static_cast<long>(l.stride),
                static_cast<long>(height), seconds * 1e6);
    std::printf("\"layer_gflops\": %.1f, \"inner_gflops\": %.1f, \"inner_share\": %.3f", whole / 1e9, inner / 1e9,
                inner / top);
    if (pattern.kind != 'u') std::printf(", \"structured_over_unstructured\": %.3f", structured / seconds);
    std::printf("}");
    first = false;
  }
  std::printf("]}\n");
}
