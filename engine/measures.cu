// measures.cu: entropies and lengths of attention's inputs, and losses, into one report on the device.
#include "engine/measures.h"

#include "engine/map.h"

namespace {

template <class T> struct TokenSquares {
  const T* x;
  int64_t columns;
  double* squares;   // [tokens]
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = x + row * columns;
    const C sum = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(in[j]); });
    if (team.leads()) squares[row] = double(sum);
  }
};

struct SampleSquares {
  const double* tokens;   // [samples, length]
  int64_t length;
  double *sums, *largest;   // [samples]
  template <class Team> HD void operator()(int64_t b, const Team& team) const {
    const double* of = tokens + b * length;
    const double sum = team.template sum<double>(length, [&](int64_t t) { return of[t]; });
    const double most = team.template max<double>(length, [&](int64_t t) { return of[t]; });
    if (team.leads()) sums[b] = sum, largest[b] = most;
  }
};

struct NoteAttention {
  const float* entropy;
  const double *sums, *largest;
  int64_t heads, batch;
  double *to_heads, *to_squares;
  template <class Team> HD void operator()(int64_t, const Team& team) const {
    const double sample = team.template max<double>(batch, [&](int64_t b) { return sums[b]; });
    const double token = team.template max<double>(batch, [&](int64_t b) { return largest[b]; });
    team.each(heads, [&](int64_t h) { to_heads[h] += double(entropy[h]) * double(batch); });
    if (!team.leads()) return;
    to_squares[0] = sample > to_squares[0] ? sample : to_squares[0];
    to_squares[1] = token > to_squares[1] ? token : to_squares[1];
  }
};

template <class T> struct NoteSum {
  const T* y;
  double* to;
  HD void operator()(int64_t) const { *to += double(Compute<T>(*y)); }
};

}  // namespace

void note_attention(const Tensor& entropy, const Tensor& x, const Tensor& report, int64_t heads, int64_t squares) {
  const Device device = x.device();
  const int64_t batch = x.dim(0), columns = x.dim(-1), rows = x.size() / columns;
  const Tensor tokens = Tensor::empty({rows}, DType::f64, device), samples = Tensor::empty({2, batch}, DType::f64, device);
  dispatch(x.dtype(), [&]<class T>() { map_rows(device, rows, TokenSquares<T>{x.data<T>(), columns, tokens.data<double>()}); });
  double *sums = samples.data<double>(), *largest = sums + batch;
  map_rows(device, batch, SampleSquares{tokens.data<double>(), rows / batch, sums, largest});
  double* to = report.data<double>();
  map_rows(device, 1, NoteAttention{entropy.data<float>(), sums, largest, entropy.size(), batch, to + heads, to + squares});
}

void note_sum(const Tensor& y, const Tensor& report, int64_t slot) {
  check(y.size() == 1, "[note_sum] one number expected, given ", y.shape());
  dispatch(y.dtype(), [&]<class T>() { map(y.device(), 1, NoteSum<T>{y.data<T>(), report.data<double>() + slot}); });
}
