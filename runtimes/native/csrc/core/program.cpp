#include "program.h"

#include <algorithm>

namespace sparsepack {

Program build_program(const SparseRows& weight, const ProgramShape& shape) {
  Program program;
  program.rows = weight.rows;
  program.group_rows = std::max<size_t>(1, shape.group_rows);
  program.groups = (weight.rows + program.group_rows - 1) / program.group_rows;
  const size_t block_columns = std::max<size_t>(1, shape.block_columns);
  // An empty reduction still needs one block, which writes the bias.
  program.block_count = std::max<size_t>(1, (weight.columns + block_columns - 1) / block_columns);
  program.entries.reserve(weight.nonzeros());
  program.blocks.reserve(program.groups * program.block_count);

  std::vector<size_t> next(weight.row_start.begin(), weight.row_start.end() - 1);
  for (size_t b = 0; b < program.block_count; ++b) {
    for (size_t group = 0; group < program.groups; ++group) {
      const size_t last_column = std::min(weight.columns, (b + 1) * block_columns);
      const size_t base = weight.columns ? shape.offset_of(b * block_columns) : 0;
      Block block{program.entries.size(), program.tasks.size(), 0, base};
      const bool edge = b == 0 || b + 1 == program.block_count;
      for (size_t row = program.group_begin(group); row < program.group_end(group); ++row) {
        size_t end = next[row];
        while (end < weight.row_start[row + 1] && weight.column[end] < last_column) ++end;
        // Rows without entries are visited only where they start (bias) or end (output).
        if (end != next[row] || edge) {
          program.tasks.push_back({static_cast<uint32_t>(row), static_cast<uint32_t>(end - next[row])});
        }
      }
      block.task_count = program.tasks.size() - block.first_task;
      for (size_t t = block.first_task; t < program.tasks.size(); ++t) {
        const RowTask task = program.tasks[t];
        for (uint32_t i = 0; i < task.count; ++i) {
          const size_t at = next[task.row]++;
          const size_t offset = shape.offset_of(weight.column[at]) - base;
          if (offset > UINT32_MAX) throw InputError("the layer is too large for one block");
          program.entries.push_back({static_cast<uint32_t>(offset), weight.value[at]});
        }
      }
      program.blocks.push_back(block);
    }
  }
  return program;
}

Program without_blocks(const Program& program, size_t divisor) {
  Program whole;
  whole.rows = program.rows;
  whole.group_rows = program.group_rows;
  whole.groups = program.groups;
  whole.block_count = 1;
  whole.entries.resize(program.entries.size());
  size_t first = 0;
  for (size_t group = 0; group < program.groups; ++group) {
    const size_t begin = program.group_begin(group), rows = program.group_end(group) - begin;
    std::vector<uint32_t> counts(rows, 0);
    const auto tasks_of = [&](size_t b, const auto& visit) {
      const Block& block = program.block(group, b);
      size_t entry = block.first_entry;
      for (size_t t = 0; t < block.task_count; ++t) {
        const RowTask task = program.tasks[block.first_task + t];
        visit(block, task, entry);
        entry += task.count;
      }
    };
    for (size_t b = 0; b < program.block_count; ++b) {
      tasks_of(b, [&](const Block&, RowTask task, size_t) { counts[task.row - begin] += task.count; });
    }
    whole.blocks.push_back({first, whole.tasks.size(), rows, 0});
    std::vector<size_t> next(rows);
    for (size_t r = 0; r < rows; ++r) {
      whole.tasks.push_back({static_cast<uint32_t>(begin + r), counts[r]});
      next[r] = first;
      first += counts[r];
    }
    for (size_t b = 0; b < program.block_count; ++b) {
      tasks_of(b, [&](const Block& block, RowTask task, size_t entry) {
        for (size_t i = 0; i < task.count; ++i) {
          Entry moved = program.entries[entry + i];
          moved.offset = static_cast<uint32_t>((moved.offset + block.activations) / divisor);
          whole.entries[next[task.row - begin]++] = moved;
        }
      });
    }
  }
  return whole;
}

}  // namespace sparsepack
