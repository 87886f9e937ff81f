// Everything about one convolution that depends on the input's size but not on its values.
#pragma once

#include "conv.h"

namespace sparsepack {

enum class ConvMode {
  kInPlace,  // 1x1, stride 1, no padding, planes aligned: tiles are runs of the input itself
  kPoints,   // 1x1 without padding otherwise: the input is copied tile by tile
  kWindows,  // any kernel: tiles 8 columns wide, with a shifted copy for each kernel column
  kLine,     // an image of one row: tiles are runs of it, with a shifted copy for each tap
};

// A tile's copy for one kernel column and one phase of the row stride.
struct Window {
  int64_t first_y, first_x;  // from the tile's first source position
  int64_t extra_rows;        // below the tile's output rows
  size_t at;                 // floats from the channel's first window
};

struct Tile {
  int64_t at;             // first output pixel
  int64_t rows, columns;  // of output pixels; rows lie out_width apart
  int units;              // width in units of 8 floats that the kernel computes
};

// The memory of the whole input: copies may read a little more than they keep, inside it.
struct Readable {
  const float* begin;
  const float* end;

  bool holds(const float* first, const float* last) const { return begin <= first && last <= end; }
};

class ConvPlan {
 public:
  ConvPlan(const ConvSpec& spec, const SparseRows& weight, int64_t height, int64_t width, int64_t out_height,
           int64_t out_width, const KernelSet& kernels);

  ConvMode mode = ConvMode::kInPlace;
  const KernelSet& kernels;
  int64_t height, width, out_height, out_width;
  std::vector<Tile> tiles;
  int64_t pitch = 0;           // floats between a tile's rows
  size_t tile_floats = 0;      // the widest tile
  std::vector<Window> windows;
  size_t channel_floats = 0;   // of one channel's copies in one tile; kInPlace: its plane
  std::vector<Program> programs;  // one a group of the convolution

  bool packs() const { return mode != ConvMode::kInPlace; }
  size_t block_channels() const { return block_channels_; }  // of one block of the reduction, the last may have fewer
  // Copies what `tile` reads of `channels` channels from `from` on, each channel_floats long (conv_pack.cpp).
  void pack(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels, Readable readable,
            float* to) const;

 private:
  void plan_points();
  void plan_windows(const ConvSpec& spec, std::vector<size_t>& tap_offset);
  void plan_line(const ConvSpec& spec, std::vector<size_t>& tap_offset);

  void pack_runs(const float* from, const Tile& tile, size_t channels, float* to) const;
  void pack_points(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels, Readable readable,
                   float* to) const;
  void pack_windows(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels, Readable readable,
                    float* to) const;
  void pack_line(const float* from, const ConvSpec& spec, const Tile& tile, size_t channels, float* to) const;

  size_t block_channels_ = 0;
};

}  // namespace sparsepack
