// dropout: each number is 0 with chance `rate`, else divided by 1 - rate. Backward draws the same words again instead of keeping a mask.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Drop {   // forward from x to y, backward from dy to dx
  const T* from;
  T* to;
  bool add;
  RandomStream stream;
  StepNumber step;
  int64_t first_sample, sample_size, pieces;   // numbers in a sample, and the pieces that it is cut in
  double rate;
  static constexpr int64_t piece = 4096;

  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const int64_t sample = row / pieces, begin = row % pieces * piece;
    const int64_t end = begin + piece < sample_size ? begin + piece : sample_size;
    const T* in = from + sample * sample_size;
    T* out = to + sample * sample_size;
    const float keep = float(1 - rate);
    const C factor = C(1 / (1 - rate));
    team.each((end - begin + 3) / 4, [&](int64_t block) {   // four numbers from one draw
      const int64_t at = begin + 4 * block;
      const Words words = stream.words(step, uint64_t(first_sample + sample), uint32_t(at / 4));
      for (int64_t k = 0; k < 4 && at + k < end; k++) {
        const C v = uniform_from(words[k]) < keep ? factor * C(in[at + k]) : C(0);
        out[at + k] = T((add ? C(out[at + k]) : C(0)) + v);
      }
    });
  }
};

}  // namespace

Tensor dropout(const Tensor& x, double rate, const RandomStream& stream, StepNumber step, int64_t first_sample) {
  const OpRange range("dropout");
  check(rate >= 0 && rate < 1, "[dropout] rate must be in [0, 1), given ", rate);
  if (rate == 0) return x;
  const int64_t sample_size = x.size() / std::max<int64_t>(1, x.dim(0));
  const int64_t pieces = (sample_size + Drop<float>::piece - 1) / Drop<float>::piece;
  const auto run = [=](const Tensor& from, const Tensor& to, bool add) {
    dispatch(from.dtype(), [&]<class T>() {
      map_rows(from.device(), from.dim(0) * pieces,
               Drop<T>{from.data<T>(), to.data<T>(), add, stream, step, first_sample, sample_size, pieces, rate});
    });
  };
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  run(x, y, false);
  record("dropout", y, {x}, [x, run](const Tensor& dy) {
    auto target = into(x);
    count_kernel({dy}, {target});
    run(dy, target.grad, target.beta != 0);
  });
  return y;
}
