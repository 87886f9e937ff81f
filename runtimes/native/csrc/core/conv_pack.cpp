// Copying a tile's part of the input into the layout that the kernels read.
//
// Whole units are copied even where some of their values lie outside the image; those are masked out,
// or overwritten by what follows. Only where such a read would leave the input's memory, in its first
// or last few channels, values are copied one by one.
#include <algorithm>

#include "conv_plan.h"

namespace sparsepack {
namespace {

// A tile's part of one channel is short and the next channel's far away: too little for the
// processor to see a pattern in, so the copies ask for it themselves.
constexpr size_t kChannelsAhead = 4;

void prefetch(const float* from, int64_t pitch, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows && columns > 0; ++r, from += pitch) {
    __builtin_prefetch(from + columns - 1);
    for (int64_t i = 0; i < columns - 1; i += 16) __builtin_prefetch(from + i);
  }
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Floats that take_units reads of one unit.
int64_t unit_reach(int64_t stride) { return stride == 2 ? 2 * kUnit : (kUnit - 1) * stride + 1; }

// One window of a tile, as far as it lies inside the image.
struct Cut {
  int64_t first_y, first_x;  // of the window, in the image
  int64_t top, middle, bottom;  // rows above, inside and below the image
  std::array<uint32_t, kUnit> lanes;
  bool whole;  // no lane lies outside
  float* at;   // from the channel's copies
};

Cut cut_of(const Window& window, int64_t y, int64_t x, int64_t rows, int64_t height, int64_t width,
           const ConvSpec& spec) {
  const auto [stride_y, stride_x] = spec.stride;
  Cut cut{y + window.first_y, x + window.first_x, 0, 0, 0, {}, true, nullptr};
  cut.top = std::min(rows, cut.first_y < 0 ? ceil_div(-cut.first_y, stride_y) : 0);
  const int64_t end = cut.first_y < height ? std::min(rows, ceil_div(height - cut.first_y, stride_y)) : 0;
  bool any = false;
  for (int64_t i = 0; i < kUnit; ++i) {
    const int64_t column = cut.first_x + i * stride_x;
    const bool inside = column >= 0 && column < width;
    cut.lanes[static_cast<size_t>(i)] = inside ? UINT32_MAX : 0;
    cut.whole &= inside;
    any |= inside;
  }
  cut.middle = any ? std::max<int64_t>(0, end - cut.top) : 0;
  cut.bottom = rows - cut.top - cut.middle;
  return cut;
}

}  // namespace

void ConvPlan::pack(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels, Readable readable,
                    float* to) const {
  if (mode == ConvMode::kWindows) return pack_windows(from, spec, tile, channels, readable, to);
  if (mode == ConvMode::kLine) return pack_line(from, spec, tile, channels, to);
  const bool strided = spec.stride != std::array<int64_t, 2>{1, 1};
  strided ? pack_points(from, spec, tile, channels, readable, to) : pack_runs(from, tile, channels, to);
  const int64_t rest = tile.units * kUnit - tile.columns;
  for (size_t c = 0; rest && c < channels; ++c) std::fill_n(to + c * channel_floats + tile.columns, rest, 0.0f);
}

void ConvPlan::pack_runs(const float* from, const Tile& tile, size_t channels, float* to) const {
  kernels.take_runs(from + tile.at, static_cast<size_t>(height * width), channels, static_cast<size_t>(tile.columns),
                    to, channel_floats);
}

// A run of output pixels of a strided 1x1 kernel spans parts of several rows. Each part is copied in
// whole units, and what is too much is overwritten by the next part.
void ConvPlan::pack_points(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels,
                           Readable readable, float* to) const {
  const auto [stride_y, stride_x] = spec.stride;
  const size_t plane = static_cast<size_t>(height * width);
  const int64_t first = tile.at / out_width, last = (tile.at + tile.columns - 1) / out_width;
  for (size_t c = 0; c < channels; ++c, from += plane, to += channel_floats) {
    if (c + kChannelsAhead < channels) {
      prefetch(from + kChannelsAhead * plane + first * stride_y * width, stride_y * width, last - first + 1, width);
    }
    for (int64_t done = 0; done < tile.columns;) {
      const int64_t y = (tile.at + done) / out_width, x = (tile.at + done) % out_width;
      const int64_t length = std::min(out_width - x, tile.columns - done), units = ceil_div(length, kUnit);
      const float* source = from + y * stride_y * width + x * stride_x;
      const bool fits = done + units * kUnit <= tile.units * kUnit;
      if (fits && readable.holds(source, source + (units - 1) * kUnit * stride_x + unit_reach(stride_x))) {
        kernels.take_units(source, static_cast<size_t>(kUnit * stride_x), static_cast<size_t>(stride_x),
                           static_cast<size_t>(units), nullptr, to + done);
      } else {
        for (int64_t i = 0; i < length; ++i) to[done + i] = source[i * stride_x];
      }
      done += length;
    }
  }
}

void ConvPlan::pack_windows(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels,
                            Readable readable, float* to) const {
  const auto [stride_y, stride_x] = spec.stride;
  const int64_t y = tile.at / out_width * stride_y - spec.pad[0], x = tile.at % out_width * stride_x - spec.pad[1];
  const size_t plane = static_cast<size_t>(height * width);
  std::vector<Cut> cuts;
  int64_t low = height * width, high = 0;  // what is read of a plane
  for (const Window& window : windows) {
    const int64_t rows = tile.rows + window.extra_rows;
    Cut cut = cut_of(window, y, x, rows, height, width, spec);
    cut.at = to + window.at;
    if (cut.middle > 0) {
      const int64_t begin = (cut.first_y + cut.top * stride_y) * width + cut.first_x;
      low = std::min(low, begin);
      high = std::max(high, begin + (cut.middle - 1) * stride_y * width + unit_reach(stride_x));
    }
    cuts.push_back(cut);
  }
  const int64_t reach_y = (tile.rows - 1) * stride_y + (spec.kernel[0] - 1) * spec.dilation[0] + stride_y;
  const int64_t reach_x = (kUnit - 1) * stride_x + (spec.kernel[1] - 1) * spec.dilation[1] + 1;
  const int64_t top = std::clamp<int64_t>(y, 0, height), bottom = std::clamp<int64_t>(y + reach_y, top, height);
  const int64_t left = std::clamp<int64_t>(x, 0, width), right = std::clamp<int64_t>(x + reach_x, left, width);

  for (size_t c = 0; c < channels; ++c, from += plane) {
    if (c + kChannelsAhead < channels) {
      prefetch(from + kChannelsAhead * plane + top * width + left, width, bottom - top, right - left);
    }
    const bool fast = low >= high || readable.holds(from + low, from + high);
    for (Cut& cut : cuts) {
      float* at = cut.at;
      for (int64_t r = 0; r < cut.top; ++r) at = std::fill_n(at, kUnit, 0.0f);  // most often none or one
      const float* source = from + (cut.first_y + cut.top * stride_y) * width + cut.first_x;
      if (fast) {
        kernels.take_units(source, static_cast<size_t>(width * stride_y), static_cast<size_t>(stride_x),
                           static_cast<size_t>(cut.middle), cut.whole ? nullptr : cut.lanes.data(), at);
      } else {
        for (int64_t r = 0; r < cut.middle; ++r, source += width * stride_y) {
          for (int64_t i = 0; i < kUnit; ++i) {
            at[r * kUnit + i] = cut.lanes[static_cast<size_t>(i)] ? source[i * stride_x] : 0.0f;
          }
        }
      }
      at += cut.middle * kUnit;
      for (int64_t r = 0; r < cut.bottom; ++r) at = std::fill_n(at, kUnit, 0.0f);
      cut.at += channel_floats;
    }
  }
}

// A tap's copy is the row from its first value on, in units; only those that reach over an end of the
// row are copied value by value.
void ConvPlan::pack_line(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels,
                         float* to) const {
  const int64_t stride = spec.stride[1], step = kUnit * stride, reach = unit_reach(stride), units = tile.units;
  for (size_t c = 0; c < channels; ++c, from += width, to += channel_floats) {
    for (const Window& window : windows) {
      const int64_t first = tile.at * stride - spec.pad[1] + window.first_x;
      const int64_t begin = std::min(units, first < 0 ? ceil_div(-first, step) : 0);
      const int64_t room = width - reach - first;
      const int64_t end = room < 0 ? begin : std::clamp(room / step + 1, begin, units);
      float* at = to + window.at;
      const auto one_by_one = [&](int64_t unit) {
        for (int64_t i = unit * kUnit; i < (unit + 1) * kUnit; ++i) {
          const int64_t column = first + i * stride;
          at[i] = column >= 0 && column < width ? from[column] : 0.0f;
        }
      };
      for (int64_t unit = 0; unit < begin; ++unit) one_by_one(unit);
      if (begin < end) {
        kernels.take_units(from + first + begin * step, static_cast<size_t>(step), static_cast<size_t>(stride),
                           static_cast<size_t>(end - begin), nullptr, at + begin * kUnit);
      }
      for (int64_t unit = end; unit < units; ++unit) one_by_one(unit);
    }
  }
}

}  // namespace sparsepack
