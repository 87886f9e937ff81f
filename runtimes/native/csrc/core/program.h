// The weight laid out for the kernels: blocks of the reduction, each small enough that its
// activations stay in the first-level cache, times groups of rows, in the order they are read.
#pragma once

#include <algorithm>
#include <functional>

#include "../kernels/kernel.h"
#include "sparse_rows.h"

namespace sparsepack {

struct Block {
  size_t first_entry;
  size_t first_task, task_count;
  size_t activations;  // bytes from the tile's activations to this block's
};

struct Program {
  size_t rows = 0;
  size_t group_rows = 0;    // rows in a group, the last may have fewer
  size_t groups = 0;
  size_t block_count = 0;   // of the reduction
  std::vector<Block> blocks;  // block_count x groups, in the order in which one thread reads them
  std::vector<RowTask> tasks;
  std::vector<Entry> entries;

  const Block& block(size_t group, size_t index) const { return blocks[index * groups + group]; }
  size_t group_begin(size_t group) const { return group * group_rows; }
  size_t group_end(size_t group) const { return std::min(rows, (group + 1) * group_rows); }
};

struct ProgramShape {
  size_t group_rows;
  size_t block_columns;                           // weight columns in a block of the reduction
  std::function<size_t(size_t column)> offset_of; // bytes from the tile's activations
};

// Sums run in column order whatever the blocks, so results do not depend on the layout.
Program build_program(const SparseRows& weight, const ProgramShape& shape);

// The same with a single block and every offset divided: for tiles so narrow that all of their
// activations stay near, where short rows would cost more than they save.
Program without_blocks(const Program& program, size_t divisor);

}  // namespace sparsepack
