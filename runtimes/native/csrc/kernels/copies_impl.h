// Copies of parts of an image, and transposition; included inside the kernel namespace.

// Every second of 2 * kUnit values.
inline void store_even(const float* from, float* to) {
#if SPARSEPACK_LANES >= 8
  store<8>(to, __builtin_shufflevector(load<8>(from), load<8>(from + 8), 0, 2, 4, 6, 8, 10, 12, 14));
#else
  store<4>(to, __builtin_shufflevector(load<4>(from), load<4>(from + 4), 0, 2, 4, 6));
  store<4>(to + 4, __builtin_shufflevector(load<4>(from + 8), load<4>(from + 12), 0, 2, 4, 6));
#endif
}

void take_runs(const float* from, size_t from_pitch, size_t rows, size_t columns, float* to, size_t to_pitch) {
  for (size_t r = 0; r < rows; ++r, from += from_pitch, to += to_pitch) {
    size_t i = 0;
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
  }
}

// Keeps the values whose mask is all ones.
template <bool Masked>
inline void store_lanes(float* to, const uint32_t* lanes, const float* values) {
  constexpr int L = kLanes < kUnit ? kLanes : kUnit;
  for (int i = 0; i < kUnit; i += L) {
    Vec<L> v = load<L>(values + i);
    if constexpr (Masked) {
      Ints<L> bits, mask;
      std::memcpy(&bits, &v, sizeof bits);
      std::memcpy(&mask, lanes + i, sizeof mask);
      bits &= mask;
      std::memcpy(&v, &bits, sizeof v);
    }
    store<L>(to + i, v);
  }
}

template <int Stride, bool Masked>
void take_units_of(const float* from, size_t from_pitch, size_t stride, size_t rows, const uint32_t* lanes,
                   float* to) {
#pragma GCC unroll 4
  for (size_t r = 0; r < rows; ++r, from += from_pitch, to += kUnit) {
    if constexpr (Stride == 1) {
      store_lanes<Masked>(to, lanes, from);
    } else {
      float unit[kUnit];
      if constexpr (Stride == 2) {
        store_even(from, unit);
      } else {
        for (size_t i = 0; i < kUnit; ++i) unit[i] = from[stride * i];
      }
      store_lanes<Masked>(to, lanes, unit);
    }
  }
}

template <bool Masked>
void take_units_of(const float* from, size_t from_pitch, size_t stride, size_t rows, const uint32_t* lanes,
                   float* to) {
  if (stride == 1) return take_units_of<1, Masked>(from, from_pitch, stride, rows, lanes, to);
  if (stride == 2) return take_units_of<2, Masked>(from, from_pitch, stride, rows, lanes, to);
  take_units_of<0, Masked>(from, from_pitch, stride, rows, lanes, to);
}

void take_units(const float* from, size_t from_pitch, size_t stride, size_t rows, const uint32_t* lanes, float* to) {
  lanes ? take_units_of<true>(from, from_pitch, stride, rows, lanes, to)
        : take_units_of<false>(from, from_pitch, stride, rows, lanes, to);
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
