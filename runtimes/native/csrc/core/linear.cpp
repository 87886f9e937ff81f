#include "linear.h"

#include <algorithm>

namespace sparsepack {
namespace {

constexpr double kUsed = 3.5 * 1024;
constexpr int kTargetUnits = 8;
constexpr size_t kGroupRows = 256;

}  // namespace

struct SparseLinear::Tile {
  Tile(const LinearCall& call, size_t matrix_, size_t first_, size_t most)
      : matrix(matrix_), first(first_), tokens(std::min(most, call.tokens - first_)), units((tokens + kUnit - 1) / kUnit) {}

  // Where its tokens' values of a feature begin, of `features` in a matrix of `all` tokens.
  size_t place(size_t all, size_t features, size_t feature, bool by_feature) const {
    return matrix * all * features + (by_feature ? feature * all + first : first * features + feature);
  }

  size_t matrix, first, tokens, units;
};

// A narrow tile lies close together, so that a long token stays near without blocks.
size_t SparseLinear::width_of(const Tile& tile) const {
  return tile.units <= kFewUnits ? tile.units * kUnit : tile_floats_;
}

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
  const auto compute = [&](size_t group) {
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
  };
  crew_.saw(for_each_job(executor, program.groups, crew_.threads(), [&] { return compute; }));
}

void SparseLinear::run(const LinearCall& call, Executor& executor) const {
  if (call.tokens == 0 || call.matrices == 0 || outputs() == 0) return;
  if (call.matrices > 1 && (call.tokens == 1 || !(call.input_by_feature || call.output_by_feature))) {
    // Whole tokens lie one after the other, whichever matrix they are of; those of one token lie both ways.
    LinearCall joined = call;
    joined.tokens *= call.matrices;
    joined.matrices = 1;
    joined.input_by_feature = joined.output_by_feature = false;
    return run(joined, executor);
  }
  if (call.tokens == 1) return run_one(call, executor);
  const size_t tiles_each = (call.tokens + tile_floats_ - 1) / tile_floats_;
  const size_t packed = inputs_ * tile_floats_, sums_floats = program_.group_rows * tile_floats_;
  const auto make = [&] {
    // Threads keep copies of their own, also where they share a tile.
    return [&, scratch = Scratch((packed + sums_floats) * sizeof(float)), copied = SIZE_MAX](size_t job) mutable {
      const size_t at = job / program_.groups, group = job % program_.groups;
      const Tile tile(call, at / tiles_each, at % tiles_each * tile_floats_, tile_floats_);
      if (copied != at) pack(call, tile, scratch.floats());
      copied = at;
      compute(call, tile, group, scratch.floats(), scratch.floats() + packed);
    };
  };
  crew_.saw(for_each_job(executor, call.matrices * tiles_each * program_.groups, crew_.threads(), make));
}

// Copies a tile's tokens so that those of a feature lie side by side.
void SparseLinear::pack(const LinearCall& call, const Tile& tile, float* to) const {
  const float* from = call.input + tile.place(call.tokens, inputs_, 0, call.input_by_feature);
  const size_t width = width_of(tile), whole = tile.units * kUnit;
  if (call.input_by_feature) {
    kernels_.take_runs(from, call.tokens, inputs_, tile.tokens, to, width);
  } else {
    kernels_.transpose(from, tile.tokens, inputs_, inputs_, to, width);
  }
  for (size_t c = 0; c < inputs_ && tile.tokens < whole; ++c) {
    std::fill(to + c * width + tile.tokens, to + c * width + whole, 0.0f);
  }
}

void SparseLinear::compute(const LinearCall& call, const Tile& tile, size_t group, const float* activations,
                           float* sums) const {
  const size_t row = program_.group_begin(group), row_count = program_.group_end(group) - row;
  RowsCall rows{};
  rows.bias = call.bias ? call.bias + row : nullptr;
  rows.scratch = sums;
  rows.scratch_stride = tile_floats_;
  const bool narrow = tile.units <= kFewUnits;
  sum_rows(narrow ? few() : program_, group, rows, activations, narrow ? width_of(tile) : kUnit,
           narrow ? kernels_.rows_few[tile.units] : kernels_.rows[tile.units]);
  const size_t place = tile.place(call.tokens, outputs(), row, call.output_by_feature);
  float* out = call.output + place;
  const float* residual = call.residual ? call.residual + place : nullptr;
  if (call.output_by_feature) {
    for (size_t r = 0; r < row_count; ++r) {
      kernels_.finish(sums + r * tile_floats_, residual ? residual + r * call.tokens : nullptr, out + r * call.tokens,
                      tile.tokens, activation_);
    }
    return;
  }
  // The activation runs where values lie side by side, unless a residual comes before it.
  if (!residual && activation_.kind != Activation::kNone) {
    kernels_.finish(sums, nullptr, sums, row_count * tile_floats_, activation_);
  }
  kernels_.transpose(sums, row_count, tile.tokens, tile_floats_, out, outputs());
  for (size_t t = 0; t < tile.tokens && residual; ++t) {
    kernels_.finish(out + t * outputs(), residual + t * outputs(), out + t * outputs(), row_count, activation_);
  }
}

}  // namespace sparsepack
