#include "conv_plan.h"

#include <algorithm>
#include <numeric>

namespace sparsepack {
namespace {

// Tiles wide enough that reading a weight is a small part of using it, yet the sums stay in registers.
constexpr int kPointUnits = 10;
constexpr int kWindowUnits = 14;
// Jobs that the tiles and row groups of one image should give.
constexpr int64_t kSharedJobs = 8;
// Multiply-adds have a latency of four: narrower tiles wait for their own sums.
constexpr int64_t kLatencyVectors = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t v, int64_t to) { return ceil_div(v, to) * to; }

// How many tiles to cut `vectors` into: of about `most`, and where that leaves tiles too narrow to
// hide the latency of a multiply-add, fewer and wider ones.
int64_t tile_count(int64_t vectors, int64_t most) {
  const int64_t count = ceil_div(vectors, most);
  return count > 1 && vectors / count < std::min(most, kLatencyVectors) ? std::max<int64_t>(1, vectors / most) : count;
}

// Whether planes of so many floats lie apart in the first-level cache, which knows a place by 64 lines
// of 16 floats: tiles of planes a power of two apart would all want the same few.
bool spread(int64_t plane) {
  const bool one_tile = plane <= kPointUnits * kUnit;
  return one_tile || std::gcd(plane / 16, int64_t{64}) < 16;
}

}  // namespace

ConvPlan::ConvPlan(const ConvSpec& spec, const SparseRows& weight, int64_t h, int64_t w, int64_t out_h, int64_t out_w,
                   const KernelSet& set)
    : kernels(set), height(h), width(w), out_height(out_h), out_width(out_w) {
  const size_t taps = static_cast<size_t>(spec.kernel[0] * spec.kernel[1]);
  std::vector<size_t> tap_offset(taps, 0);
  // Of shifted copies more stays in use at a time than of what lies there once.
  const bool shifted = taps > 1 && spec.stride[0] == 1 && spec.stride[1] == 1;
  const size_t bytes = block_bytes(weight, shifted ? 2.5 * 1024 : 4 * 1024);
  const bool unpadded = spec.pad == std::array<int64_t, 4>{0, 0, 0, 0};
  if (taps == 1 && unpadded) {
    const bool unit_stride = spec.stride == std::array<int64_t, 2>{1, 1};
    const bool aligned = (height * width) % 16 == 0;
    // Offsets of a block have to reach its last plane.
    const size_t channels = std::min<size_t>(spec.group_channels, bytes / (kPointUnits * kUnit * sizeof(float)));
    const bool near = static_cast<size_t>(height * width) <= kMostOffset * kUnit / std::max<size_t>(1, channels);
    mode = unit_stride && aligned && near && spread(height * width) ? ConvMode::kInPlace : ConvMode::kPoints;
    plan_points();
  } else if (height == 1 && out_height == 1 && spec.kernel[0] == 1 && spec.pad[0] == 0) {
    mode = ConvMode::kLine;
    plan_line(spec, tap_offset);
  } else {
    mode = ConvMode::kWindows;
    plan_windows(spec, tap_offset);
  }

  const size_t near = bytes / ((mode == ConvMode::kInPlace ? tile_floats : channel_floats) * sizeof(float));
  // As many as offsets and counts of entries can tell apart.
  const size_t most = std::min(kMostOffset * kUnit / channel_floats, kMostOffset / taps);
  const size_t block_channels = std::max<size_t>(1, std::min(near, most));
  const size_t group_outputs = spec.out_channels / spec.groups;
  ProgramShape shape;
  // Long groups let a pass over the weights go on undisturbed; several let threads share few tiles.
  const size_t shared = std::max<size_t>(2, ceil_div(kSharedJobs, static_cast<int64_t>(tiles.size())));
  shape.group_rows = std::min<size_t>(512, std::max<size_t>(16, (group_outputs + shared - 1) / shared));
  // Blocks of equal length: a short last one would pay for the partial sums like a long one.
  const size_t blocks = std::max<size_t>(1, (spec.group_channels + block_channels - 1) / block_channels);
  block_channels_ = (spec.group_channels + blocks - 1) / blocks;
  shape.block_columns = block_channels_ * taps;
  shape.offset_of = [&](size_t column) {
    return (column / taps * channel_floats + tap_offset[column % taps]) / kUnit;
  };
  for (size_t g = 0; g < spec.groups; ++g) {
    SparseRows part;
    part.rows = group_outputs;
    part.columns = weight.columns;
    const size_t first = weight.row_start[g * group_outputs], last = weight.row_start[(g + 1) * group_outputs];
    part.column.assign(weight.column.begin() + first, weight.column.begin() + last);
    part.value.assign(weight.value.begin() + first, weight.value.begin() + last);
    for (size_t r = 0; r <= group_outputs; ++r) part.row_start.push_back(weight.row_start[g * group_outputs + r] - first);
    programs.push_back(build_program(part, shape));
  }
}

// Tiles of nearly equal width that all begin on a whole vector.
void ConvPlan::plan_points() {
  const int64_t pixels = out_height * out_width;
  const int64_t step = kUnit * kernels.align_units;
  const int64_t vectors = ceil_div(pixels, step);
  const int64_t most = std::min(kPointUnits, kernels.max_units) / kernels.align_units;
  int64_t count = tile_count(vectors, most);
  while (ceil_div(vectors, count) * kernels.align_units > kernels.max_units) ++count;
  int64_t begin = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t end = std::min(pixels, vectors * (i + 1) / count * step);
    tiles.push_back({begin, 1, end - begin, static_cast<int>(ceil_div(end - begin, kUnit))});
    tile_floats = std::max<size_t>(tile_floats, static_cast<size_t>(round_up(end - begin, step)));
    begin = end;
  }
  pitch = static_cast<int64_t>(tile_floats);
  channel_floats = mode == ConvMode::kInPlace ? static_cast<size_t>(pixels) : tile_floats;
}

// Tiles as of a 1x1 kernel, with a copy for each tap.
void ConvPlan::plan_line(const ConvSpec& spec, std::vector<size_t>& tap_offset) {
  plan_points();
  for (size_t tap = 0; tap < tap_offset.size(); ++tap) {
    tap_offset[tap] = tap * tile_floats;
    windows.push_back({0, static_cast<int64_t>(tap) * spec.dilation[1], 0, tap_offset[tap]});
  }
  channel_floats = tap_offset.size() * tile_floats;
}

// Strips of 8 columns: a tile is then nearly square and its halo small, which is what lets a long
// block of the reduction fit the first-level cache.
void ConvPlan::plan_windows(const ConvSpec& spec, std::vector<size_t>& tap_offset) {
  const auto [kernel_h, kernel_w] = spec.kernel;
  const auto [stride_y, stride_x] = spec.stride;
  pitch = kUnit;
  const int64_t down = ceil_div(out_height, std::min(kWindowUnits, kernels.max_units));
  const int64_t tile_rows = ceil_div(out_height, down);
  tile_floats = static_cast<size_t>(round_up(tile_rows * pitch, 16));

  // Taps whose source rows differ by a multiple of the stride share a copy, one kernel column each.
  for (int64_t phase = 0; phase < stride_y; ++phase) {
    int64_t extra = -1;
    for (int64_t ky = 0; ky < kernel_h; ++ky) {
      if (ky * spec.dilation[0] % stride_y == phase) extra = ky * spec.dilation[0] / stride_y;
    }
    if (extra < 0) continue;
    for (int64_t kx = 0; kx < kernel_w; ++kx) {
      windows.push_back({phase, kx * spec.dilation[1], extra, channel_floats});
      for (int64_t ky = 0; ky < kernel_h; ++ky) {
        const int64_t reach = ky * spec.dilation[0];
        if (reach % stride_y != phase) continue;
        tap_offset[static_cast<size_t>(ky * kernel_w + kx)] = channel_floats + static_cast<size_t>(reach / stride_y * pitch);
      }
      channel_floats += static_cast<size_t>((tile_rows + extra) * pitch);
    }
  }
  // Strips side by side come together: threads then part the image between rows, as 1x1 layers do.
  for (int64_t i = 0; i < down; ++i) {
    const int64_t y = out_height * i / down, rows = out_height * (i + 1) / down - y;
    for (int64_t x = 0; x < out_width; x += pitch) {
      tiles.push_back({y * out_width + x, rows, std::min(pitch, out_width - x), static_cast<int>(rows)});
    }
  }
  constexpr size_t kMostFloats = size_t{1} << 28;  // of scratch for one tile
  if (channel_floats > kMostFloats / spec.group_channels) {
    throw InputError("the kernel's reach is too large");
  }
}

}  // namespace sparsepack
