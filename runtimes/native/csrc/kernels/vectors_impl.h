// Vectors of L floats; included inside the kernel namespace.

constexpr int kLanes = SPARSEPACK_LANES;

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

// Keeps a value out of vectors: of sums that the compiler gathers in one it may round the products apart,
// where the others are fused.
inline void keep_scalar(float& value) {
#if defined(__x86_64__)
  asm("" : "+x"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#endif
}

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
