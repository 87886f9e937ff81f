// Residual add and activation over a run of values; included inside the kernel namespace.
//
// exp follows Cephes: e^x = 2^n * e^r with |r| <= ln(2)/2 and a polynomial of degree 5 for e^r,
// within 2 units in the last place on the clamped range. erf is x * p(x^2) / q(x^2), both of degree 5,
// fitted by reweighted least squares on |x| < 3.925, beyond which it rounds to 1: within 2e-8 before
// rounding, 3e-7 after.

template <int L>
inline Vec<L> exp_of(Vec<L> x) {
  const Vec<L> nan_in = x;
  x = clamp<L>(x, -87.3f, 88.3f);
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
  const Vec<L> magic = splat<L>(12582912.0f);
  const Vec<L> n = (x * 1.44269504f + magic) - magic;
  Vec<L> r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vec<L> p = splat<L>(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  Ints<L> bits = __builtin_convertvector(n, Ints<L>);
  bits = (bits + 127) << 23;
  Vec<L> power;
  std::memcpy(&power, &bits, sizeof power);
  const Vec<L> result = p * power;
  return nan_in == nan_in ? result : nan_in;
}

template <int L>
inline Vec<L> erf_of(Vec<L> x) {
  x = clamp<L>(x, -3.925f, 3.925f);
  const Vec<L> z = x * x;
  Vec<L> p = splat<L>(2.030851419476676e-6f);
  p = p * z + 2.8749302146025e-4f;
  p = p * z + 3.8763859774917364e-3f;
  p = p * z + 5.308453366160393e-2f;
  p = p * z + 1.9297398626804352e-1f;
  p = p * z + 1.128378987312317f;
  Vec<L> q = splat<L>(3.8031306758057326e-5f);
  q = q * z + 1.1897635413333774e-3f;
  q = q * z + 1.5188474208116531e-2f;
  q = q * z + 1.1516804248094559e-1f;
  q = q * z + 5.043503642082214e-1f;
  q = q * z + 1.0f;
  return clamp<L>(x * p / q, -1.0f, 1.0f);
}

template <int L>
inline Vec<L> activate(Vec<L> v, const ActivationSpec& spec) {
  switch (spec.kind) {
    case Activation::kNone:
      return v;
    case Activation::kClamp:
      return clamp<L>(v, spec.alpha, spec.beta);
    case Activation::kLeakyRelu:
      return v < Vec<L>{} ? v * spec.alpha : v;
    case Activation::kHardSwish:
      return v * clamp<L>(v * spec.alpha + spec.beta, 0.0f, 1.0f);
    case Activation::kSilu:
      return v / (1.0f + exp_of<L>(-v));
    case Activation::kGelu:
      return 0.5f * v * (1.0f + erf_of<L>(v * 0.70710678118f));
    case Activation::kGeluTanh: {
      const Vec<L> u = 1.5957691216f * (v + 0.044715f * v * v * v);  // 2 * sqrt(2 / pi)
      return v / (1.0f + exp_of<L>(-u));
    }
  }
  return v;
}

void finish(const float* in, const float* residual, float* out, size_t count, const ActivationSpec& spec) {
  constexpr int L = kLanes;
  size_t i = 0;
  for (; i + L <= count; i += L) {
    Vec<L> v = load<L>(in + i);
    if (residual) v += load<L>(residual + i);
    store<L>(out + i, activate<L>(v, spec));
  }
  if (i == count) return;
  // The rest goes through a full vector, so that a value never depends on its place.
  float buffer[L] = {};
  std::memcpy(buffer, in + i, (count - i) * sizeof(float));
  Vec<L> v = load<L>(buffer);
  if (residual) {
    std::memcpy(buffer, residual + i, (count - i) * sizeof(float));
    v += load<L>(buffer);
  }
  store<L>(buffer, activate<L>(v, spec));
  std::memcpy(out + i, buffer, (count - i) * sizeof(float));
}
