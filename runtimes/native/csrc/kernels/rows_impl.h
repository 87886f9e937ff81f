// Sums of rows of the weight over a tile of activations; included inside the kernel namespace.

constexpr uint32_t kLineEntries = 64 / sizeof(Entry);

// A tile of U units: as many full vectors of L lanes as fit, and one half where U is odd for 16 lanes.
template <int U, int L>
struct Shape {
  static constexpr int kFull = U * kUnit / L;
  static constexpr int kRest = U * kUnit % L;
  static constexpr int kHalf = kRest ? kRest : 4;  // a valid type where there is no rest
};

// Residual, clamp and store.
template <int L>
inline void finish_whole(const RowsCall& call, size_t place, Vec<L> v) {
  if (call.residual) v += load<L>(call.residual + place);
  if (call.clamp) v = clamp<L>(v, call.low, call.high);
  store<L>(call.out + place, v);
}

// Stores a vector of which only some lanes may be kept.
template <int L>
__attribute__((noinline)) void finish_part(const RowsCall& call, size_t place, int at, Vec<L> v) {
  int count = call.unit_columns - at % kUnit;
  if (call.out_step == kUnit) count = call.columns - at;
  if (count <= 0) return;
  place += static_cast<size_t>(at / kUnit) * call.out_step + static_cast<size_t>(at % kUnit);
  if (call.residual) {
    const float* residual = call.residual + place;
    if (count >= L || residual + L <= call.residual_end) {
      v += load<L>(residual);  // lanes past the count belong to other outputs and are dropped
    } else {
      float lanes[L] = {};
      std::memcpy(lanes, residual, static_cast<size_t>(count) * sizeof(float));
      v += load<L>(lanes);
    }
  }
  if (call.clamp) v = clamp<L>(v, call.low, call.high);
  if (count >= L) {
    store<L>(call.out + place, v);
  } else {
    store_part<L>(call.out + place, v, count);
  }
}

// The sums of one row over a tile. Offsets count in runs of Scale floats.
template <int U, int L, int Scale = kUnit>
struct Sums {
  using S = Shape<U, L>;
  // A weight reaches the lanes through an integer register, loaded together with its offset: a
  // broadcast from memory would take a load port from the activations. Narrow tiles wait for their
  // own sums, not for ports, and lose by the longer way.
  static constexpr bool kByInteger = U >= 8 && L >= 8;

  Vec<L> full[S::kFull ? S::kFull : 1];
  Vec<S::kHalf> half;

  void begin(const RowsCall& call, RowTask task) {
    if (call.first) {
      const float bias = call.bias ? call.bias[task.row] : 0.0f;
      for (int i = 0; i < S::kFull; ++i) full[i] = splat<L>(bias);
      if (S::kRest) half = splat<S::kHalf>(bias);
    } else {
      const float* scratch = call.scratch + task.row * call.scratch_stride;
      for (int i = 0; i < S::kFull; ++i) full[i] = load<L>(scratch + i * L);
      if (S::kRest) half = load<S::kHalf>(scratch + S::kFull * L);
    }
  }

  void add(const RowsCall& call, const Entry* entry) {
    size_t offset = entry->offset;
    Vec<L> w;
    if constexpr (kByInteger) {
      uint64_t both;
      std::memcpy(&both, entry, sizeof both);
      asm volatile("" : "+r"(both));  // or the compiler makes it two loads
      offset = static_cast<uint16_t>(both >> 32);
      w = splat_bits<L>(static_cast<uint32_t>(both));
    } else {
      w = splat<L>(entry->weight);
    }
    const float* x = call.activations + offset * Scale;
    for (int i = 0; i < S::kFull; ++i) full[i] += w * load<L>(x + i * L);
    if (S::kRest) half += splat<S::kHalf>(entry->weight) * load<S::kHalf>(x + S::kFull * L);
  }

  void end(const RowsCall& call, RowTask task) {
    const size_t local = task.row;
    if (!call.out) {
      float* scratch = call.scratch + local * call.scratch_stride;
      for (int i = 0; i < S::kFull; ++i) store<L>(scratch + i * L, full[i]);
      if (S::kRest) store<S::kHalf>(scratch + S::kFull * L, half);
      return;
    }
    const auto in_out = [&](int at) {
      return static_cast<size_t>(at / kUnit) * call.out_step + static_cast<size_t>(at % kUnit);
    };
    const size_t place = local * call.out_stride;
    if (call.whole == U * kUnit) {
      if (call.residual) {
        const float* residual = call.residual + place;
        for (int i = 0; i < S::kFull; ++i) full[i] += load<L>(residual + in_out(i * L));
        if (S::kRest) half += load<S::kHalf>(residual + in_out(S::kFull * L));
      }
      if (call.clamp) {
        for (int i = 0; i < S::kFull; ++i) full[i] = clamp<L>(full[i], call.low, call.high);
        if (S::kRest) half = clamp<S::kHalf>(half, call.low, call.high);
      }
      float* out = call.out + place;
      for (int i = 0; i < S::kFull; ++i) store<L>(out + in_out(i * L), full[i]);
      if (S::kRest) store<S::kHalf>(out + in_out(S::kFull * L), half);
      return;
    }
    // Unrolled: an index that varies at run time would keep the sums in memory all along.
#pragma GCC unroll 32
    for (int i = 0; i < S::kFull; ++i) {
      if (i * L + L <= call.whole) {
        finish_whole<L>(call, place + in_out(i * L), full[i]);
      } else {
        finish_part<L>(call, place, i * L, full[i]);
      }
    }
    if (S::kRest) finish_part<S::kHalf>(call, place, S::kFull * L, half);
  }
};

template <int U, int L>
void rows(const RowsCall& shared) {
  const RowsCall call = shared;  // a copy, which no store can change
  const bool rows_ahead = call.rows_ahead && call.out;
  const Entry* entry = call.entries;
  for (size_t t = 0; t < call.task_count; ++t) {
    const RowTask task = call.tasks[t];
    if (call.entries_ahead) {
      for (uint32_t i = 0; i < task.count; i += kLineEntries) __builtin_prefetch(entry + call.entries_ahead + i);
    }
    if (rows_ahead && t + call.rows_ahead < call.task_count) {
      const size_t next = call.tasks[t + call.rows_ahead].row * call.out_stride;
      for (size_t i = 0; i < U * kUnit; i += 2 * kUnit) __builtin_prefetch(call.out + next + i, 1);
      for (size_t i = 0; call.residual && i < U * kUnit; i += 2 * kUnit) __builtin_prefetch(call.residual + next + i);
    }
    Sums<U, L> sums;
    sums.begin(call, task);
    for (const Entry* end = entry + task.count; entry != end; ++entry) sums.add(call, entry);
    sums.end(call, task);
  }
}

// Rows that are summed side by side where a tile has too few vectors to hide the latency of a
// multiply-add.
constexpr size_t kTogether = 4;

template <class Sum>
const Entry* rows_together(const RowsCall& call, const RowTask* tasks, const Entry* entry) {
  Sum sums[kTogether];
  const Entry* from[kTogether];
  uint32_t shared = UINT32_MAX;
  for (size_t i = 0; i < kTogether; ++i) {
    sums[i].begin(call, tasks[i]);
    from[i] = entry;
    entry += tasks[i].count;
    shared = shared < tasks[i].count ? shared : tasks[i].count;
  }
  for (uint32_t k = 0; k < shared; ++k) {
    for (size_t i = 0; i < kTogether; ++i) sums[i].add(call, from[i] + k);
  }
  for (size_t i = 0; i < kTogether; ++i) {
    for (uint32_t k = shared; k < tasks[i].count; ++k) sums[i].add(call, from[i] + k);
    sums[i].end(call, tasks[i]);
  }
  return entry;
}

// A single position: the distance between two columns is one float.
struct Sum {
  float sum;

  void begin(const RowsCall& call, RowTask task) {
    sum = !call.first ? call.scratch[task.row * call.scratch_stride] : call.bias ? call.bias[task.row] : 0.0f;
  }
  void add(const RowsCall& call, const Entry* entry) {
    size_t offset = entry->offset;
    asm("" : "+r"(offset));  // or the compiler gathers vectors value by value, which is slower
    sum += entry->weight * call.activations[offset];
    keep_scalar(sum);
  }
  void end(const RowsCall& call, RowTask task) { call.scratch[task.row * call.scratch_stride] = sum; }
};

template <class Sum>
void rows_few(const RowsCall& call) {
  const Entry* entry = call.entries;
  size_t t = 0;
  for (; t + kTogether <= call.task_count; t += kTogether) entry = rows_together<Sum>(call, call.tasks + t, entry);
  for (; t < call.task_count; ++t) {
    Sum sum;
    sum.begin(call, call.tasks[t]);
    for (const Entry* end = entry + call.tasks[t].count; entry != end; ++entry) sum.add(call, entry);
    sum.end(call, call.tasks[t]);
  }
}
