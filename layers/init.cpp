// init.cpp: drawing initial values.
#include "layers/init.h"

#include <cmath>

#include "layers/lipschitz/singular_value.h"

namespace {

// Element i of a parameter, a function of the stream alone.
double draw(const RandomStream& stream, int64_t i, bool normal) {
  const Words w = stream.words(0, uint64_t(i) / 2, 0);
  const int at = int(i % 2) * 2;
  return normal ? normal_from(w[at], w[at + 1]) : 2.0 * (double(w[at]) + 0.5) / 4294967296.0 - 1.0;
}

}  // namespace

void initialize(const Tensor& x, const Init& init, const RandomStream& stream) {
  const int64_t n = x.size(), rows = x.shape().rank() ? x.dim(0) : 1, columns = n / std::max<int64_t>(1, rows);
  std::vector<double> values(n, init.value);
  if (init.kind == Init::sinusoid) {
    const int64_t width = x.dim(-1);
    for (int64_t i = 0; i < n; i++) {
      const int64_t j = i % width;
      const double angle = double(i / width) / std::pow(10000.0, double(j / 2 * 2) / double(width));
      values[i] = j % 2 ? std::cos(angle) : std::sin(angle);
    }
  } else if (init.kind != Init::constant) {
    double scale = init.value;
    if (init.kind == Init::xavier_normal || init.kind == Init::spectral) {
      // A convolution's fan-out counts its kernel area too, as torch.nn.init does.
      const int64_t area = x.shape().rank() == 4 ? x.dim(2) * x.dim(3) : 1;
      scale = init.kind == Init::spectral ? 1.0 : init.value * std::sqrt(2.0 / double(columns + rows * area));
    }
    for (int64_t i = 0; i < n; i++) values[i] = scale * draw(stream, i, init.kind != Init::uniform);
    if (init.kind == Init::unit_rows)
      for (int64_t r = 0; r < rows; r++) {
        double squares = 0;
        for (int64_t i = r * columns; i < (r + 1) * columns; i++) squares += (values[i] = draw(stream, i, true)) * values[i];
        for (int64_t i = r * columns; i < (r + 1) * columns; i++) values[i] /= std::sqrt(squares / double(columns));
      }
    if (init.kind == Init::spectral) {
      const double sigma = largest_singular_value(values.data(), rows, columns);
      for (double& v : values) v /= sigma;
    }
  }
  dispatch(x.dtype(), [&]<class T>() { T* to = x.data<T>(); for (int64_t i = 0; i < n; i++) to[i] = T(values[i]); });
}
