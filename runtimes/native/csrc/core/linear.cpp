#include "linear.h"

#include <algorithm>

namespace sparsepack {
namespace {

constexpr double kUsed = 3.5 * 1024;
constexpr int kTargetUnits = 8;
constexpr size_t kGroupRows = 256;
constexpr size_t kPackColumns = 64;  // features transposed by one job

}  // namespace

SparseLinear::SparseLinear(SparseRows weight, ActivationSpec activation)
    : kernels_(kernels()),
      activation_(activation),
      inputs_(weight.columns),
      tile_floats_(static_cast<size_t>(std::min(kTargetUnits, kernels_.max_units) * kUnit)) {
  ProgramShape shape;
  shape.group_rows = std::min<size_t>(kGroupRows, std::max<size_t>(16, (weight.rows / 4 + 15) / 16 * 16));
  const size_t most = block_bytes(weight, kUsed) / (tile_floats_ * sizeof(float));
  const size_t blocks = std::max<size_t>(1, (weight.columns + most - 1) / most);
  block_columns_ = shape.block_columns = (weight.columns + blocks - 1) / blocks;
  shape.offset_of = [this](size_t column) { return column * tile_floats_ / kUnit; };
  program_ = build_program(weight, shape);
}

// Blocks of one row group; what is not said about them is in `rows`.
void SparseLinear::sum_rows(const Program& program, size_t group, RowsCall& rows, const float* activations,
                            size_t unit, RowsFunction kernel) const {
  for (size_t b = 0; b < program.block_count; ++b) {
    const Block& block = program.block(group, b);
    rows.activations = activations + block.activations * unit;
    rows.entries = program.entries.data() + block.first_entry;
    rows.tasks = program.tasks.data() + block.first_task;
    rows.task_count = block.task_count;
    rows.first = b == 0;
    kernel(rows);
  }
}

const Program& SparseLinear::few() const {
  std::call_once(few_once_, [this] { few_ = with_long_blocks(program_, block_columns_, tile_floats_ / kUnit); });
  return few_;
}

// One token needs no transposing: its features are one float apart as they are.
void SparseLinear::run_one(const LinearCall& call, Executor& executor) const {
  const Program& program = few();
  for_each_job(executor, program.groups, [&](size_t group) {
    const size_t row = program.group_begin(group), row_count = program.group_end(group) - row;
    RowsCall rows{};
    rows.bias = call.bias ? call.bias + row : nullptr;
    rows.scratch = call.output + row;
    rows.scratch_stride = 1;
    sum_rows(program, group, rows, call.input, 1, kernels_.rows_few[0]);
    if (call.residual || activation_.kind != Activation::kNone) {
      kernels_.finish(call.output + row, call.residual ? call.residual + row : nullptr, call.output + row, row_count,
                      activation_);
    }
  });
}

void SparseLinear::run(const LinearCall& call, Executor& executor) const {
  if (call.tokens == 0 || outputs() == 0) return;
  if (call.tokens == 1) return run_one(call, executor);
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
    // A narrow tile lies close together, so that a long token stays near without blocks.
    auto is_few = [&](size_t tile) { return units_of(tile) <= kFewUnits; };
    auto width_of = [&](size_t tile) { return is_few(tile) ? units_of(tile) * kUnit : tile_floats_; };

    for_each_job(executor, tiles * slices, [&](size_t job) {
      const size_t tile = job / slices, column = job % slices * kPackColumns;
      const size_t columns = std::min(kPackColumns, inputs_ - column), tokens = tokens_of(tile);
      const float* from = call.input + (begin + tile) * tile_floats_ * inputs_ + column;
      const size_t width = width_of(tile), whole = units_of(tile) * kUnit;
      float* to = packed.floats() + tile * tile_size + column * width;
      kernels_.transpose(from, tokens, columns, inputs_, to, width);
      for (size_t c = 0; c < columns && tokens < whole; ++c) {
        std::fill(to + c * width + tokens, to + c * width + whole, 0.0f);
      }
    });

    for_each_job(executor, tiles * program_.groups, [&](size_t job) {
      const size_t tile = job % tiles, group = job / tiles, tokens = tokens_of(tile);
      const size_t row = program_.group_begin(group), row_count = program_.group_end(group) - row;
      Scratch scratch(program_.group_rows * tile_floats_ * sizeof(float));
      float* sums = scratch.floats();
      RowsCall rows{};
      rows.bias = call.bias ? call.bias + row : nullptr;
      rows.scratch = sums;
      rows.scratch_stride = tile_floats_;
      sum_rows(is_few(tile) ? few() : program_, group, rows, packed.floats() + tile * tile_size,
               is_few(tile) ? width_of(tile) : kUnit,
               is_few(tile) ? kernels_.rows_few[units_of(tile)] : kernels_.rows[units_of(tile)]);
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
