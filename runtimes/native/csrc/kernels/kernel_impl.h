// The kernels, written once in compiler vector types; each instruction set's file sets
// SPARSEPACK_NAMESPACE, SPARSEPACK_LANES and SPARSEPACK_MAX_UNITS and includes this.
// Everything has internal linkage: the same template compiled for two instruction sets must never
// be merged by the linker.
#pragma once

#include <cmath>
#include <cstring>

#include "kernel.h"

namespace sparsepack {
namespace {

constexpr int kLanes = SPARSEPACK_LANES;
constexpr uint32_t kLineEntries = 64 / sizeof(Entry);

// Declared with float alignment: activations used in place begin anywhere.
template <int L>
struct VectorOf {
  typedef float type __attribute__((vector_size(L * 4), aligned(4), may_alias));
};
template <int L>
using Vec = typename VectorOf<L>::type;

template <int L>
inline Vec<L> splat(float value) {
  return value - Vec<L>{};
}

template <int L>
using Ints = decltype(Vec<L>{} < Vec<L>{});

template <int L>
inline Vec<L> splat_bits(uint32_t bits) {
  const Ints<L> lanes = static_cast<int32_t>(bits) - Ints<L>{};
  Vec<L> v;
  std::memcpy(&v, &lanes, sizeof v);
  return v;
}

// Comparisons are written so that NaN passes through.
template <int L>
inline Vec<L> clamp(Vec<L> v, float low, float high) {
  const Vec<L> lo = splat<L>(low), hi = splat<L>(high);
  v = v < lo ? lo : v;
  return v > hi ? hi : v;
}

template <int L>
inline Vec<L> load(const float* p) {
  return *reinterpret_cast<const Vec<L>*>(p);
}
template <int L>
inline void store(float* p, Vec<L> v) {
  *reinterpret_cast<Vec<L>*>(p) = v;
}

// A tile of U units: as many full vectors of L lanes as fit, and one half where U is odd for 16 lanes.
template <int U, int L>
struct Shape {
  static constexpr int kFull = U * kUnit / L;
  static constexpr int kRest = U * kUnit % L;
  static constexpr int kHalf = kRest ? kRest : 4;  // a valid type where there is no rest
};

// Stores the first `count` lanes.
template <int L>
inline void store_part(float* to, Vec<L> v, int count) {
  float lanes[L];
  store<L>(lanes, v);
  int i = 0;
  if constexpr (L > 8) {
    if (count & 8) store<8>(to, load<8>(lanes)), i = 8;
  }
  if constexpr (L > 4) {
    if (count & 4) store<4>(to + i, load<4>(lanes + i)), i += 4;
  }
  if (count & 2) {
    std::memcpy(to + i, lanes + i, 8);
    i += 2;
  }
  if (count & 1) to[i] = lanes[i];
}

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

// The sums of one row over a tile. Offsets count in units of Scale bytes.
template <int U, int L, int Scale = 1>
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
      const float* scratch = call.scratch + (task.row - call.row_base) * call.scratch_stride;
      for (int i = 0; i < S::kFull; ++i) full[i] = load<L>(scratch + i * L);
      if (S::kRest) half = load<S::kHalf>(scratch + S::kFull * L);
    }
  }

  void add(const RowsCall& call, const Entry* entry) {
    uint32_t offset = entry->offset;
    Vec<L> w;
    if constexpr (kByInteger) {
      uint64_t both;
      std::memcpy(&both, entry, sizeof both);
      asm volatile("" : "+r"(both));  // or the compiler makes it two loads
      offset = static_cast<uint32_t>(both);
      w = splat_bits<L>(static_cast<uint32_t>(both >> 32));
    } else {
      w = splat<L>(entry->weight);
    }
    const float* x = reinterpret_cast<const float*>(call.activations + static_cast<size_t>(offset) * Scale);
    for (int i = 0; i < S::kFull; ++i) full[i] += w * load<L>(x + i * L);
    if (S::kRest) half += splat<S::kHalf>(entry->weight) * load<S::kHalf>(x + S::kFull * L);
  }

  void end(const RowsCall& call, RowTask task) {
    const size_t local = task.row - call.row_base;
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
      const size_t next = (call.tasks[t + call.rows_ahead].row - call.row_base) * call.out_stride;
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
    const size_t local = task.row - call.row_base;
    sum = !call.first ? call.scratch[local * call.scratch_stride] : call.bias ? call.bias[task.row] : 0.0f;
  }
  void add(const RowsCall& call, const Entry* entry) {
    uint32_t offset = entry->offset;
    asm("" : "+r"(offset));  // or the compiler gathers vectors value by value, which is slower
    float x;
    std::memcpy(&x, call.activations + offset, sizeof x);
    sum += entry->weight * x;
  }
  void end(const RowsCall& call, RowTask task) { call.scratch[(task.row - call.row_base) * call.scratch_stride] = sum; }
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

// Every second of 2 * kUnit values.
inline void store_even(const float* from, float* to) {
#if SPARSEPACK_LANES >= 8
  store<8>(to, __builtin_shufflevector(load<8>(from), load<8>(from + 8), 0, 2, 4, 6, 8, 10, 12, 14));
#else
  store<4>(to, __builtin_shufflevector(load<4>(from), load<4>(from + 4), 0, 2, 4, 6));
  store<4>(to + 4, __builtin_shufflevector(load<4>(from + 8), load<4>(from + 12), 0, 2, 4, 6));
#endif
}

void take_columns(const float* from, size_t from_pitch, size_t stride, size_t rows, size_t columns, float* to,
                  size_t to_pitch) {
  for (size_t r = 0; r < rows; ++r, from += from_pitch, to += to_pitch) {
    size_t i = 0;
    if (stride == 1) {
      for (; i + kLanes <= columns; i += kLanes) store<kLanes>(to + i, load<kLanes>(from + i));
      // A rest overlaps what is already there instead of going value by value.
      for (; i + kUnit <= columns; i += kUnit) store<kUnit>(to + i, load<kUnit>(from + i));
      if (i < columns && columns >= kUnit) {
        store<kUnit>(to + columns - kUnit, load<kUnit>(from + columns - kUnit));
      } else if (i < columns && columns >= 4) {
        store<4>(to, load<4>(from));
        store<4>(to + columns - 4, load<4>(from + columns - 4));
      } else {
        for (; i < columns; ++i) to[i] = from[i];
      }
    } else if (stride == 2) {
      for (; i + kUnit < columns; i += kUnit) store_even(from + 2 * i, to + i);  // reads one value before the next
      for (; i < columns; ++i) to[i] = from[2 * i];
    } else {
      for (; i < columns; ++i) to[i] = from[stride * i];
    }
  }
}

void take_units(const float* from, size_t from_pitch, size_t stride, size_t rows, float* to) {
  if (stride == 1) {
    for (; rows >= 2; rows -= 2, from += 2 * from_pitch, to += 2 * kUnit) {
      const Vec<kUnit> a = load<kUnit>(from), b = load<kUnit>(from + from_pitch);
      store<kUnit>(to, a);
      store<kUnit>(to + kUnit, b);
    }
    if (rows) store<kUnit>(to, load<kUnit>(from));
  } else if (stride == 2) {
    for (size_t r = 0; r < rows; ++r, from += from_pitch, to += kUnit) store_even(from, to);
  } else {
    for (size_t r = 0; r < rows; ++r, from += from_pitch, to += kUnit) {
      for (size_t i = 0; i < kUnit; ++i) to[i] = from[stride * i];
    }
  }
}

#if SPARSEPACK_LANES >= 8
constexpr int kBlock = 8;

inline void transpose_block(const float* from, size_t from_stride, float* to, size_t to_stride) {
  Vec<8> r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = load<8>(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    s[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    s[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      r[i + j] = __builtin_shufflevector(s[i + j], s[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      r[i + j + 2] = __builtin_shufflevector(s[i + j], s[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    store<8>(to + i * to_stride, __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11));
    store<8>(to + (i + 4) * to_stride, __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15));
  }
}
#else
constexpr int kBlock = 4;

inline void transpose_block(const float* from, size_t from_stride, float* to, size_t to_stride) {
  Vec<4> r[4], s[4];
  for (int i = 0; i < 4; ++i) r[i] = load<4>(from + i * from_stride);
  for (int i = 0; i < 4; i += 2) {
    s[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 4, 2, 6);
    s[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 5, 3, 7);
  }
  for (int i = 0; i < 2; ++i) {
    store<4>(to + i * to_stride, __builtin_shufflevector(s[i], s[i + 2], 0, 1, 4, 5));
    store<4>(to + (i + 2) * to_stride, __builtin_shufflevector(s[i], s[i + 2], 2, 3, 6, 7));
  }
}
#endif

void transpose(const float* from, size_t rows, size_t columns, size_t from_stride, float* to, size_t to_stride) {
  const size_t whole_rows = rows - rows % kBlock, whole_columns = columns - columns % kBlock;
  for (size_t r = 0; r < whole_rows; r += kBlock) {
    for (size_t c = 0; c < whole_columns; c += kBlock) {
      transpose_block(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    }
  }
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c) {
      to[c * to_stride + r] = from[r * from_stride + c];
    }
  }
}

#include "activation_impl.h"

template <int U>
constexpr void fill_rows(KernelSet& set) {
  // Rows that begin off a whole vector are read in halves: a wide load across two cache lines
  // costs two, two narrow ones within a line each do not.
  set.rows[U] = rows<U, kLanes>;
  set.rows_narrow[U] = rows<U, (kLanes > kUnit ? kUnit : kLanes)>;
  if constexpr (U < SPARSEPACK_MAX_UNITS) fill_rows<U + 1>(set);
}

constexpr KernelSet make_set(const char* name) {
  KernelSet set{};
  set.name = name;
  set.max_units = SPARSEPACK_MAX_UNITS;
  set.align_units = kLanes > kUnit ? kLanes / kUnit : 1;
  fill_rows<1>(set);
  set.rows_few[0] = rows_few<Sum>;
  set.rows_few[1] = rows_few<Sums<1, kLanes < kUnit ? kLanes : kUnit, kUnit>>;
  set.rows_few[2] = rows_few<Sums<2, kLanes, 2 * kUnit>>;
  set.take_columns = take_columns;
  set.take_units = take_units;
  set.transpose = transpose;
  set.finish = finish;
  return set;
}

}  // namespace
}  // namespace sparsepack
