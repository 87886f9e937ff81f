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
  size_t activations;  // units from the tile's activations to this block's
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
  size_t block_columns;                           // weight columns in a block of the reduction, at most kMostOffset
  std::function<size_t(size_t column)> offset_of; // units from the tile's activations
};

// Activations of one block of the reduction: what the first-level cache holds, or more where so few
// weights are kept that rows so short would cost more in taking up and putting down their sums than
// the cache saves; `used` bytes of each row's own share are then wanted.
size_t block_bytes(const SparseRows& weight, double used);

// Sums run in column order whatever the blocks, so results do not depend on the layout.
Program build_program(const SparseRows& weight, const ProgramShape& shape);

// The same in blocks as long as offsets reach, with every offset divided: for tiles so narrow that all
// of their activations stay near, where short rows would cost more than they save.
Program with_long_blocks(const Program& program, size_t block_columns, size_t divisor);

}  // namespace sparsepack
