#include "program.h"

#include <algorithm>

namespace sparsepack {

size_t block_bytes(const SparseRows& weight, double used) {
  constexpr double kCache = 32 * 1024, kMost = 256 * 1024;
  const double positions = static_cast<double>(weight.rows) * static_cast<double>(weight.columns);
  return static_cast<size_t>(std::clamp(used * positions / static_cast<double>(weight.nonzeros() + 1), kCache, kMost));
}

Program build_program(const SparseRows& weight, const ProgramShape& shape) {
  Program program;
  program.rows = weight.rows;
  program.group_rows = std::clamp<size_t>(shape.group_rows, 1, UINT16_MAX);
  program.groups = (weight.rows + program.group_rows - 1) / program.group_rows;
  const size_t block_columns = std::clamp<size_t>(shape.block_columns, 1, kMostOffset);
  // An empty reduction still needs one block, which writes the bias.
  program.block_count = std::max<size_t>(1, (weight.columns + block_columns - 1) / block_columns);
  program.entries.reserve(weight.nonzeros() + kEntriesReadPast);
  program.blocks.reserve(program.groups * program.block_count);

  std::vector<size_t> next(weight.row_start.begin(), weight.row_start.end() - 1);
  for (size_t b = 0; b < program.block_count; ++b) {
    for (size_t group = 0; group < program.groups; ++group) {
      const size_t last_column = std::min(weight.columns, (b + 1) * block_columns);
      const size_t base = weight.columns ? shape.offset_of(b * block_columns) : 0;
      Block block{program.entries.size(), program.tasks.size(), 0, base};
      const bool edge = b == 0 || b + 1 == program.block_count;
      const size_t first_row = program.group_begin(group);
      for (size_t row = first_row; row < program.group_end(group); ++row) {
        size_t end = next[row];
        while (end < weight.row_start[row + 1] && weight.column[end] < last_column) ++end;
        // Rows without entries are visited only where they start (bias) or end (output).
        if (end != next[row] || edge) {
          program.tasks.push_back({static_cast<uint16_t>(row - first_row), static_cast<uint16_t>(end - next[row])});
        }
      }
      block.task_count = program.tasks.size() - block.first_task;
      for (size_t t = block.first_task; t < program.tasks.size(); ++t) {
        const RowTask task = program.tasks[t];
        for (uint32_t i = 0; i < task.count; ++i) {
          const size_t at = next[first_row + task.row]++;
          const size_t offset = shape.offset_of(weight.column[at]) - base;
          if (offset > kMostOffset) throw InputError("the kernel's reach is too large");
          program.entries.push_back({weight.value[at], static_cast<uint16_t>(offset)});
        }
      }
      program.blocks.push_back(block);
    }
  }
  program.entries.resize(weight.nonzeros() + kEntriesReadPast);
  return program;
}

Program with_long_blocks(const Program& program, size_t block_columns, size_t divisor) {
  const size_t joined = std::clamp<size_t>(kMostOffset / std::max<size_t>(1, block_columns), 1, program.block_count);
  Program longer;
  longer.rows = program.rows;
  longer.group_rows = program.group_rows;
  longer.groups = program.groups;
  longer.block_count = (program.block_count + joined - 1) / joined;
  longer.entries.resize(program.entries.size());
  size_t first = 0;
  for (size_t joint = 0; joint < longer.block_count; ++joint) {
    const size_t begin = joint * joined, end = std::min(program.block_count, begin + joined);
    for (size_t group = 0; group < program.groups; ++group) {
      const size_t rows = program.group_end(group) - program.group_begin(group);
      const size_t base = program.block(group, begin).activations;
      const auto for_each_task = [&](const auto& visit) {
        for (size_t b = begin; b < end; ++b) {
          const Block& block = program.block(group, b);
          size_t entry = block.first_entry;
          for (size_t t = 0; t < block.task_count; ++t) {
            const RowTask task = program.tasks[block.first_task + t];
            visit(block, task, entry);
            entry += task.count;
          }
        }
      };
      std::vector<uint16_t> counts(rows, 0);
      for_each_task([&](const Block&, RowTask task, size_t) { counts[task.row] += task.count; });
      longer.blocks.push_back({first, longer.tasks.size(), rows, base / divisor});
      std::vector<size_t> next(rows);
      for (size_t r = 0; r < rows; ++r) {
        longer.tasks.push_back({static_cast<uint16_t>(r), counts[r]});
        next[r] = first;
        first += counts[r];
      }
      for_each_task([&](const Block& block, RowTask task, size_t entry) {
        for (size_t i = 0; i < task.count; ++i) {
          Entry moved = program.entries[entry + i];
          moved.offset = static_cast<uint16_t>((moved.offset + block.activations - base) / divisor);
          longer.entries[next[task.row]++] = moved;
        }
      });
    }
  }
  return longer;
}

}  // namespace sparsepack
