#include "conv.h"

#include <algorithm>

#include "conv_plan.h"

namespace sparsepack {
namespace {

// Everything one run needs in its jobs.
struct Run {
  const ConvSpec& spec;
  const ConvPlan& plan;
  const ConvCall& call;
  size_t in_plane, out_plane, group_outputs;
  bool clamp;
  bool direct;  // no activation or a clamp: the kernel itself finishes the output
  float low, high;
  const float* residual_end;
  size_t block_floats;  // of the copies of one block
  Readable readable;

  // Batch items and groups lie one after the other, so one number names both.
  const float* image(size_t index) const { return call.input + index * spec.group_channels * in_plane; }
};

// Writes a tile's finished rows from scratch to the output.
void finish_rows(const Run& run, const Tile& tile, size_t n, size_t first_row, size_t row_count, const float* scratch) {
  const auto& plan = run.plan;
  for (size_t r = 0; r < row_count; ++r) {
    const float* from = scratch + r * plan.tile_floats;
    size_t at = (n * run.spec.out_channels + first_row + r) * run.out_plane + static_cast<size_t>(tile.at);
    for (int64_t y = 0; y < tile.rows; ++y) {
      plan.kernels.finish(from, run.call.residual ? run.call.residual + at : nullptr, run.call.output + at,
                          static_cast<size_t>(tile.columns), run.spec.activation);
      from += plan.pitch;
      at += static_cast<size_t>(plan.out_width);
    }
  }
}

// Row groups [first, last) of one tile. `activations` are as the plan's programs expect them; null:
// each block's are copied to `own` just before they are used, and so stay in the nearest cache.
void compute(const Run& run, const Tile& tile, size_t image, size_t first, size_t last, const float* activations,
             float* scratch, float* own) {
  const size_t n = image / run.spec.groups, g = image % run.spec.groups;
  const auto& plan = run.plan;
  const Program& program = plan.programs[g];
  const size_t row0 = g * run.group_outputs;  // of the whole convolution
  const bool windows = plan.mode == ConvMode::kWindows;
  const size_t scratch_row = program.group_begin(first);
  RowsCall rows{};
  rows.scratch_stride = plan.tile_floats;
  rows.out_stride = run.out_plane;
  rows.out_step = windows ? static_cast<size_t>(plan.out_width) : kUnit;
  // A width of exactly one unit makes the tile's rows one run.
  rows.unit_columns = static_cast<int>(tile.columns);
  rows.columns = static_cast<int>(tile.rows * tile.columns);
  rows.whole = !windows || tile.columns == kUnit ? rows.columns : 0;
  rows.clamp = run.clamp;
  rows.low = run.low;
  rows.high = run.high;
  // With one tile the weights are read once, from far away.
  rows.entries_ahead = plan.tiles.size() == 1 ? 256 : 0;
  rows.rows_ahead = windows ? 0 : 5;
  for (size_t b = 0; b < program.block_count; ++b) {
    const bool final_block = b + 1 == program.block_count;
    if (!activations) {
      const size_t channel = b * plan.block_channels();
      const size_t count = std::min(plan.block_channels(), run.spec.group_channels - channel);
      plan.pack(run.image(image) + channel * run.in_plane, run.spec, tile, count, run.readable, own);
    }
    for (size_t group = first; group < last; ++group) {
      const Block& block = program.block(group, b);
      const size_t begin = program.group_begin(group);
      rows.activations = activations ? activations + block.activations * kUnit : own;
      rows.entries = program.entries.data() + block.first_entry;
      rows.tasks = program.tasks.data() + block.first_task;
      rows.task_count = block.task_count;
      rows.first = b == 0;
      rows.bias = run.call.bias ? run.call.bias + row0 + begin : nullptr;
      rows.scratch = scratch + (begin - scratch_row) * plan.tile_floats;
      if (run.direct && final_block) {
        const size_t at = (n * run.spec.out_channels + row0 + begin) * run.out_plane + static_cast<size_t>(tile.at);
        rows.out = run.call.output + at;
        rows.residual = run.call.residual ? run.call.residual + at : nullptr;
        rows.residual_end = run.residual_end;
      }
      (windows ? plan.kernels.rows_narrow : plan.kernels.rows)[tile.units](rows);
      if (!run.direct && final_block) {
        finish_rows(run, tile, n, row0 + begin, program.group_end(group) - begin, rows.scratch);
      }
    }
  }
}

}  // namespace

SparseConv::SparseConv(ConvSpec spec, SparseRows weight) : spec_(spec), weight_(std::move(weight)) {
  const size_t taps = static_cast<size_t>(spec_.kernel[0] * spec_.kernel[1]);
  // Blocks of the reduction are whole channels, whose entries an offset has to tell apart.
  if (taps > kMostOffset) throw InputError("the kernel has more than " + std::to_string(kMostOffset) + " taps");
  if (spec_.groups == 0 || spec_.out_channels % spec_.groups != 0) {
    throw InputError("output channels are not a multiple of the groups");
  }
  if (weight_.rows != spec_.out_channels || weight_.columns != spec_.group_channels * taps) {
    throw InputError("the weight's shape does not match the convolution");
  }
}

SparseConv::~SparseConv() = default;

std::array<int64_t, 2> SparseConv::output_size(int64_t height, int64_t width) const {
  const std::array<int64_t, 2> in{height, width};
  std::array<int64_t, 2> out{};
  for (size_t i = 0; i < 2; ++i) {
    const int64_t padded = in[i] + spec_.pad[i] + spec_.pad[i + 2];
    const int64_t reach = (spec_.kernel[i] - 1) * spec_.dilation[i] + 1;
    if (padded < reach) throw InputError("the kernel is larger than the padded input");
    out[i] = (padded - reach) / spec_.stride[i] + 1;
  }
  return out;
}

std::shared_ptr<const ConvPlan> SparseConv::plan_for(int64_t height, int64_t width) {
  constexpr size_t kKeptPlans = 4;  // a layout is as large as the weight
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = plans_.find({height, width});
  if (found != plans_.end()) return found->second;
  const auto out = output_size(height, width);
  auto plan = std::make_shared<const ConvPlan>(spec_, weight_, height, width, out[0], out[1], kernels());
  if (plans_.size() >= kKeptPlans) plans_.erase(plans_.begin());
  plans_[{height, width}] = plan;
  return plan;
}

void SparseConv::prepare(int64_t height, int64_t width) { plan_for(height, width); }

void SparseConv::run(const ConvCall& call, Executor& executor) {
  const auto [out_h, out_w] = output_size(call.height, call.width);
  if (call.batch == 0 || out_h * out_w == 0 || spec_.out_channels == 0) return;
  const auto plan = plan_for(call.height, call.width);
  Run run{spec_, *plan, call, static_cast<size_t>(call.height * call.width), static_cast<size_t>(out_h * out_w),
          spec_.out_channels / spec_.groups, spec_.activation.kind == Activation::kClamp, false,
          spec_.activation.alpha, spec_.activation.beta, nullptr, plan->block_channels() * plan->channel_floats,
          {call.input, call.input + static_cast<size_t>(call.batch * call.height * call.width) * spec_.groups * spec_.group_channels}};
  run.direct = run.clamp || spec_.activation.kind == Activation::kNone;

  if (call.residual) run.residual_end = call.residual + static_cast<size_t>(call.batch) * spec_.out_channels * run.out_plane;
  const size_t images = static_cast<size_t>(call.batch) * spec_.groups;  // one a batch item and group
  const size_t tile_count = plan->tiles.size(), tiles = images * tile_count;
  const size_t channels = spec_.group_channels, row_groups = plan->programs[0].groups;
  const size_t packed = plan->packs() ? channels * plan->channel_floats : 0;
  const size_t enough = crew_.enough_jobs();
  const size_t splits = std::min(row_groups, std::max<size_t>(1, enough / tiles));
  const size_t sums = (row_groups + splits - 1) / splits * plan->programs[0].group_rows * plan->tile_floats;
  // A tile whose rows are shared out is copied whole by each thread that has a part in it; otherwise
  // each block is copied just before its use, and then found in the nearest cache.
  const bool shares = splits > 1;
  const size_t copies = packed ? (shares ? packed : run.block_floats) : 0;
  const auto make = [&] {
    return [&, scratch = Scratch((sums + copies) * sizeof(float)), copied = SIZE_MAX](size_t job) mutable {
      const size_t split = job % splits, at = job / splits, image = at / tile_count;
      const Tile& tile = plan->tiles[at % tile_count];
      float* own = scratch.floats() + sums;
      if (packed && shares && copied != at) {
        plan->pack(run.image(image), spec_, tile, channels, run.readable, own);
        copied = at;
      }
      const float* activations = packed ? shares ? own : nullptr : run.image(image) + tile.at;
      compute(run, tile, image, row_groups * split / splits, row_groups * (split + 1) / splits, activations,
              scratch.floats(), own);
    };
  };
  crew_.saw(for_each_job(executor, tiles * splits, crew_.threads(), make));
}

}  // namespace sparsepack
