#include "linear.h"

#include <algorithm>

namespace sparsepack {
namespace {

constexpr size_t kBlockBytes = 36 * 1024;
constexpr int kTargetUnits = 8;
constexpr size_t kPackColumns = 64;  // features transposed by one job

}  // namespace

SparseLinear::SparseLinear(SparseRows weight, ActivationSpec activation)
    : kernels_(kernels()),
      activation_(activation),
      inputs_(weight.columns),
      tile_floats_(static_cast<size_t>(std::min(kTargetUnits, kernels_.max_units) * kUnit)) {
  ProgramShape shape;
  shape.group_rows = std::min<size_t>(128, std::max<size_t>(16, (weight.rows / 8 + 15) / 16 * 16));
  const size_t most = kBlockBytes / (tile_floats_ * sizeof(float));
  const size_t blocks = std::max<size_t>(1, (weight.columns + most - 1) / most);
  shape.block_columns = (weight.columns + blocks - 1) / blocks;
  shape.offset_of = [this](size_t column) { return column * tile_floats_ * sizeof(float); };
  program_ = build_program(weight, shape);
}

void SparseLinear::run(const LinearCall& call, Executor& executor) const {
  if (call.tokens == 0 || outputs() == 0) return;
  // Enough tiles at once to keep every thread busy, few enough that the copies stay bounded.
  constexpr size_t kTilesAtOnce = 8;
  const size_t tiles_total = (call.tokens + tile_floats_ - 1) / tile_floats_;
  const size_t tiles_at_once = std::min(kTilesAtOnce, tiles_total);
  const size_t tile_size = std::max<size_t>(1, inputs_) * tile_floats_;
  Scratch packed(tiles_at_once * tile_size * sizeof(float));
  for (size_t begin = 0; begin < tiles_total; begin += tiles_at_once) {
    const size_t tiles = std::min(tiles_at_once, tiles_total - begin);
    const size_t slices = (inputs_ + kPackColumns - 1) / kPackColumns;
    auto tokens_of = [&](size_t tile) { return std::min(tile_floats_, call.tokens - (begin + tile) * tile_floats_); };
    auto units_of = [&](size_t tile) { return (tokens_of(tile) + kUnit - 1) / kUnit; };

    for_each_job(executor, tiles * slices, [&](size_t job) {
      const size_t tile = job / slices, column = job % slices * kPackColumns;
      const size_t columns = std::min(kPackColumns, inputs_ - column), tokens = tokens_of(tile);
      const float* from = call.input + (begin + tile) * tile_floats_ * inputs_ + column;
      float* to = packed.floats() + tile * tile_size + column * tile_floats_;
      kernels_.transpose(from, tokens, columns, inputs_, to, tile_floats_);
      for (size_t c = 0; c < columns && tokens < units_of(tile) * kUnit; ++c) {
        std::fill(to + c * tile_floats_ + tokens, to + c * tile_floats_ + units_of(tile) * kUnit, 0.0f);
      }
    });

    for_each_job(executor, tiles * program_.groups, [&](size_t job) {
      const size_t tile = job % tiles, group = job / tiles, tokens = tokens_of(tile);
      const size_t row = program_.group_begin(group), row_count = program_.group_end(group) - row;
      Scratch scratch(program_.group_rows * tile_floats_ * sizeof(float));
      float* sums = scratch.floats();
      RowsCall rows{};
      rows.bias = call.bias;
      rows.scratch = sums;
      rows.scratch_stride = tile_floats_;
      rows.row_base = static_cast<uint32_t>(row);
      for (size_t b = 0; b < program_.block_count; ++b) {
        const Block& block = program_.block(group, b);
        rows.activations = reinterpret_cast<const char*>(packed.floats() + tile * tile_size) + block.activations;
        rows.entries = program_.entries.data() + block.first_entry;
        rows.tasks = program_.tasks.data() + block.first_task;
        rows.task_count = block.task_count;
        rows.first = b == 0;
        kernels_.rows[units_of(tile)](rows);
      }
      // The activation runs where values lie side by side, unless a residual comes before it.
      if (!call.residual && activation_.kind != Activation::kNone) {
        kernels_.finish(sums, nullptr, sums, row_count * tile_floats_, activation_);
      }
      float* out = call.output + (begin + tile) * tile_floats_ * outputs() + row;
      kernels_.transpose(sums, row_count, tokens, tile_floats_, out, outputs());
      for (size_t t = 0; t < tokens && call.residual; ++t) {
        const size_t at = ((begin + tile) * tile_floats_ + t) * outputs() + row;
        kernels_.finish(call.output + at, call.residual + at, call.output + at, row_count, activation_);
      }
    });
  }
}

}  // namespace sparsepack
