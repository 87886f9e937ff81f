// The contract between the portable drivers and the kernels of one instruction set.
//
// A tile is a run of output positions (pixels or tokens). Its width counts in units of 8 floats.
// The activations of a tile are laid out so that each column of the weight is one contiguous run
// of the tile's width; a kept weight is then one scalar and the distance to its run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsepack {

constexpr int kUnit = 8;       // floats in a unit of tile width
constexpr int kFewUnits = 2;   // the widest tile that has rows_few
constexpr int kMaxUnits = 16;  // the widest tile of any instruction set

// Weights pass from far memory through every cache in each run, so that each byte of them costs time.
#pragma pack(push, 2)
struct Entry {
  float weight;
  uint16_t offset;  // units from the block's activations to the weight's run
};
#pragma pack(pop)
// Kernels read an entry as one integer, two bytes past its end.
constexpr size_t kEntriesReadPast = 1;
constexpr size_t kMostOffset = UINT16_MAX;

struct RowTask {
  uint16_t row;    // of its group
  uint16_t count;  // entries of this row in this block
};

enum class Activation { kNone, kClamp, kLeakyRelu, kHardSwish, kSilu, kGelu, kGeluTanh };

struct ActivationSpec {
  Activation kind = Activation::kNone;
  float alpha = 0.0f;  // clamp: low; leaky relu: slope; hard swish: slope
  float beta = 0.0f;   // clamp: high; hard swish: offset
};

// One block of the reduction applied to a list of rows.
struct RowsCall {
  const float* activations;
  const Entry* entries;
  const RowTask* tasks;
  size_t task_count;
  bool first;         // start from the bias (or zero) instead of the scratch rows
  const float* bias;  // by row, as scratch, out and residual are; may be null
  float* scratch;     // scratch_stride floats a row; aligned to 64 bytes
  size_t scratch_stride;
  float* out;             // null: results go to scratch; else finished here, vector by vector
  size_t out_stride;      // floats between rows of out and residual
  size_t out_step;        // floats between a row's units in out (8 where the tile is one run)
  int unit_columns;       // values kept of each unit of 8, fewer only where out_step is not 8
  int columns;            // values kept of the tile where it is one run
  int whole;              // the leading values of the tile that are kept without a gap
  const float* residual;  // may be null
  const float* residual_end;
  bool clamp;
  float low, high;
  size_t entries_ahead;  // entries to prefetch at this distance; 0: the processor does well alone
  size_t rows_ahead;     // output and residual to prefetch this many rows before they are finished; 0: not
};

using RowsFunction = void (*)(const RowsCall&);

struct KernelSet {
  const char* name;
  int max_units;                     // the widest tile that stays in registers
  int align_units;                   // tiles should begin at multiples of this
  RowsFunction rows[kMaxUnits + 1];  // by tile width; [0] unused
  RowsFunction rows_narrow[kMaxUnits + 1];  // for activations aligned to a unit only
  // Long rows over one position ([0], always to scratch) and over one or two units; the entries'
  // offsets count columns.
  RowsFunction rows_few[kFewUnits + 1];
  // Copies `rows` runs of `columns` values, the runs `from_pitch` and `to_pitch` floats apart.
  void (*take_runs)(const float* from, size_t from_pitch, size_t rows, size_t columns, float* to, size_t to_pitch);
  // Takes one unit a row, every stride-th value of it, and packs the units without a gap. Where `lanes` is
  // given, values are kept where its word is all ones and are 0 elsewhere. Values that are not kept are
  // read, too; with a stride of 2 all of 2 * kUnit.
  void (*take_units)(const float* from, size_t from_pitch, size_t stride, size_t rows, const uint32_t* lanes,
                     float* to);
  // to[c * to_stride + r] = from[r * from_stride + c]; fastest where a row of `from` is long
  void (*transpose)(const float* from, size_t rows, size_t columns, size_t from_stride, float* to, size_t to_stride);
  // out[i] = activation(in[i] + residual[i]); in place is allowed; residual may be null
  void (*finish)(const float* in, const float* residual, float* out, size_t count, const ActivationSpec&);
};

// The best set this processor runs; SPARSEPACK_ISA=generic|avx2|avx512|neon asks for a lesser one.
const KernelSet& kernels();
const KernelSet* kernels_named(const char* name);  // null: unknown, not built or not runnable here

}  // namespace sparsepack
