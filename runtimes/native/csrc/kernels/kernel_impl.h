// The kernels, written once in compiler vector types; each instruction set's file sets
// SPARSEPACK_LANES and SPARSEPACK_MAX_UNITS and includes this.
// Everything has internal linkage: the same template compiled for two instruction sets must never
// be merged by the linker.
#pragma once

#include <cmath>
#include <cstring>

#include "kernel.h"

namespace sparsepack {
namespace {

#include "vectors_impl.h"

#include "activation_impl.h"
#include "copies_impl.h"
#include "rows_impl.h"

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
  set.take_runs = take_runs;
  set.take_units = take_units;
  set.transpose = transpose;
  set.finish = finish;
  return set;
}

}  // namespace
}  // namespace sparsepack
