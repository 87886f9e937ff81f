// Sparse convolution against a float64 reference over generated shapes.
#include <cstring>

#include "core/conv.h"
#include "support.h"

using namespace sparsepack;

namespace {

struct Case {
  ConvSpec spec;
  int64_t batch, height, width;
  double density;
  bool bias, residual;
};

Case generate(support::Random& random, int index) {
  Case c;
  auto& s = c.spec;
  s.groups = index % 5 == 0 ? static_cast<size_t>(random.in(2, 3)) : 1;
  s.group_channels = static_cast<size_t>(random.in(1, index % 7 == 0 ? 300 : 40));
  s.out_channels = s.groups * static_cast<size_t>(random.in(1, index % 11 == 0 ? 200 : 20));
  const bool point = index % 3 == 0;
  for (size_t i = 0; i < 2; ++i) {
    s.kernel[i] = point ? 1 : random.in(1, 5);
    s.stride[i] = random.in(1, 3);
    s.dilation[i] = random.in(1, 3);
    s.pad[i] = point && index % 2 ? 0 : random.in(0, 3);
    s.pad[i + 2] = point && index % 2 ? 0 : random.in(0, 3);
  }
  if (index % 6 == 3) s.stride = {1, 1}, s.pad = {0, 0, 0, 0};
  const int64_t reach_y = (s.kernel[0] - 1) * s.dilation[0] + 1, reach_x = (s.kernel[1] - 1) * s.dilation[1] + 1;
  c.height = random.in(std::max<int64_t>(1, reach_y - s.pad[0] - s.pad[2]), reach_y + 20);
  c.width = random.in(std::max<int64_t>(1, reach_x - s.pad[1] - s.pad[3]), reach_x + 40);
  if (index % 12 == 3) c.height = 16, c.width = 28;  // planes of whole cache lines: read in place
  if (index % 8 == 1) {  // one long row, as of a 1-D convolution
    s.kernel[0] = 1, s.pad[0] = s.pad[2] = 0, c.height = 1;
    c.width = random.in(std::max<int64_t>(1, reach_x - s.pad[1] - s.pad[3]), reach_x + 400);
  }
  c.batch = random.in(1, 3);
  const double densities[] = {0, 0.02, 0.1, 0.3, 1};
  c.density = densities[random.in(0, 4)];
  c.bias = random.in(0, 1);
  c.residual = random.in(0, 1);
  const ActivationSpec activations[] = {{},
                                        {Activation::kClamp, 0.0f, INFINITY},
                                        {Activation::kClamp, -0.5f, 1.0f},
                                        {Activation::kLeakyRelu, 0.1f, 0},
                                        {Activation::kHardSwish, 1.0f / 6, 0.5f},
                                        {Activation::kSilu, 0, 0},
                                        {Activation::kGelu, 0, 0},
                                        {Activation::kGeluTanh, 0, 0}};
  s.activation = activations[random.in(0, 7)];
  return c;
}

void check(support::Random& random, const Case& c) {
  const ConvSpec& s = c.spec;
  const size_t taps = static_cast<size_t>(s.kernel[0] * s.kernel[1]);
  const SparseRows weight = random.sparse(s.out_channels, s.group_channels * taps, c.density);
  SparseConv conv(s, weight);
  const auto [out_h, out_w] = conv.output_size(c.height, c.width);
  const size_t in_plane = static_cast<size_t>(c.height * c.width), out_plane = static_cast<size_t>(out_h * out_w);
  const size_t channels = s.groups * s.group_channels;
  const auto input = random.values(static_cast<size_t>(c.batch) * channels * in_plane);
  const auto bias = random.values(s.out_channels);
  const size_t out_size = static_cast<size_t>(c.batch) * s.out_channels * out_plane;
  const auto residual = random.values(out_size);
  std::vector<float> got(out_size, NAN), threaded(out_size, NAN);

  ConvCall call{input.data(), c.batch, c.height, c.width, c.bias ? bias.data() : nullptr,
                c.residual ? residual.data() : nullptr, got.data()};
  SerialExecutor serial;
  conv.run(call, serial);
  call.output = threaded.data();
  support::ThreadExecutor threads(3);
  conv.run(call, threads);
  support::expect(!std::memcmp(got.data(), threaded.data(), out_size * 4), "same bits from one thread and three");

  std::vector<double> want(out_size), scale(out_size);
  const size_t group_outputs = s.out_channels / s.groups;
  for (size_t n = 0, at = 0; n < static_cast<size_t>(c.batch); ++n) {
    for (size_t m = 0; m < s.out_channels; ++m) {
      const float* image = input.data() + (n * channels + m / group_outputs * s.group_channels) * in_plane;
      for (int64_t y = 0; y < out_h; ++y) {
        for (int64_t x = 0; x < out_w; ++x, ++at) {
          double sum = c.bias ? bias[m] : 0, magnitude = std::fabs(sum);
          for (size_t e = weight.row_start[m]; e < weight.row_start[m + 1]; ++e) {
            const size_t tap = weight.column[e] % taps;
            const int64_t iy = y * s.stride[0] - s.pad[0] + static_cast<int64_t>(tap) / s.kernel[1] * s.dilation[0];
            const int64_t ix = x * s.stride[1] - s.pad[1] + static_cast<int64_t>(tap) % s.kernel[1] * s.dilation[1];
            if (iy < 0 || iy >= c.height || ix < 0 || ix >= c.width) continue;
            const double product = static_cast<double>(weight.value[e]) *
                                   image[weight.column[e] / taps * in_plane + static_cast<size_t>(iy * c.width + ix)];
            sum += product;
            magnitude += std::fabs(product);
          }
          if (c.residual) sum += residual[at], magnitude += std::fabs(residual[at]);
          want[at] = support::activate(sum, s.activation);
          scale[at] = magnitude + std::fabs(want[at]);
        }
      }
    }
  }
  char name[200];
  std::snprintf(name, sizeof name, "conv %zux%zu g%zu k%ldx%ld s%ld,%ld d%ld,%ld in %ldx%ldx%ld density %g act %d",
                s.out_channels, s.group_channels, s.groups, s.kernel[0], s.kernel[1], s.stride[0], s.stride[1],
                s.dilation[0], s.dilation[1], c.batch, c.height, c.width, c.density,
                static_cast<int>(s.activation.kind));
  support::expect_close(name, got, want, scale);
}

}  // namespace

int main(int argc, char** argv) {
  support::Random random;
  const int cases = argc > 1 ? std::atoi(argv[1]) : 300;
  for (int i = 0; i < cases; ++i) check(random, generate(random, i));
  return support::finish("test_conv", cases);
}
