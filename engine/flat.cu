// flat.cu: norms of the gradient and AdamW over flat buffers, a warp a piece.
#include "engine/flat.h"

#include <algorithm>

#include "engine/map.h"

namespace {

constexpr int64_t piece_size = 2048;

struct Piece {
  int32_t begin, end, parameter, remembered;
};

template <class T> struct PieceSquares {
  const T* g;
  const Piece* pieces;
  double* partial;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const Piece p = pieces[i];
    const T* from = g + p.begin;
    const T sum = team.template sum<T>(p.end - p.begin, [&](int64_t j) { return from[j] * from[j]; });
    if (team.leads()) partial[i] = double(sum);
  }
};

struct ParameterSquares {
  const double* partial;
  const int32_t* first;
  double* squares;
  template <class Team> HD void operator()(int64_t p, const Team& team) const {
    const double sum = team.template sum<double>(first[p + 1] - first[p], [&](int64_t j) { return partial[first[p] + j]; });
    if (team.leads()) squares[p] = sum;
  }
};

// torch.nn.utils.clip_grad_norm_: min(1, clip / (norm + 1e-6)).
struct Clip {
  const double* squares;
  int64_t parameters;
  double clip;
  float* numbers;
  template <class Team> HD void operator()(int64_t, const Team& team) const {
    const double norm = sqrt(team.template sum<double>(parameters, [&](int64_t p) { return squares[p]; }));
    if (!team.leads()) return;
    numbers[step_grad_norm] = float(norm);
    const double factor = clip / (norm + 1e-6);
    numbers[step_clip] = clip > 0 && factor < 1 ? float(factor) : 1.0f;
  }
};

template <class T> struct Update {
  const T* g;
  T *w, *m, *v, *ema;
  const Piece* pieces;
  const float *decay, *numbers;
  T beta1, beta2, eps, ema_decay;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const T norm = numbers[step_grad_norm];
    if (!(norm - norm == 0)) return;   // not finite: the step is refused as a whole
    const Piece p = pieces[i];
    const T lr = numbers[step_lr], clip = numbers[step_clip], rate = lr / numbers[step_correction1];
    const T root2 = T(1) / T(sqrt(T(numbers[step_correction2]))), keep = 1 - lr * decay[p.parameter];
    const Update u = *this;
    team.each(p.end - p.begin, [&](int64_t j) {
      const int64_t at = p.begin + j, state = p.remembered + j;
      const T g = u.g[at] * clip;
      const T m = u.m[state] = u.beta1 * u.m[state] + (1 - u.beta1) * g;
      const T v = u.v[state] = u.beta2 * u.v[state] + (1 - u.beta2) * g * g;
      const T w = u.w[at] = keep * u.w[at] - rate * m / (T(sqrt(v)) * root2 + u.eps);
      if (u.ema) u.ema[at] = u.ema_decay * u.ema[at] + (1 - u.ema_decay) * w;
    });
  }
};

template <class T> struct Gather {
  const T* flat;
  const int32_t* table;   // [which, 3]: begin, end, place in packed
  T* packed;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const int32_t *row = table + 3 * i;
    team.each(row[1] - row[0], [&](int64_t j) { packed[row[2] + j] = flat[row[0] + j]; });
  }
};

}  // namespace

FlatPieces::FlatPieces(const std::vector<FlatRange>& parameters, Device device) : ranges_(parameters) {
  std::vector<int32_t> bounds, first{0};
  for (size_t p = 0; p < parameters.size(); p++) {
    check(parameters[p].end < int64_t(1) << 31, "[flat] parameters of more than 2^31 numbers");
    const auto& [from, end, remembered] = parameters[p];
    for (int64_t begin = from; begin < end; begin += piece_size)
      bounds.insert(bounds.end(), {int32_t(begin), int32_t(std::min(end, begin + piece_size)), int32_t(p), int32_t(remembered + begin - from)});
    first.push_back(int32_t(bounds.size() / 4));
  }
  pieces_ = int64_t(bounds.size() / 4);
  bounds_ = Tensor::from(Shape{pieces_, 4}, bounds, DType::i32, device);
  first_piece_ = Tensor::from(Shape{int64_t(first.size())}, first, DType::i32, device);
  partial_ = Tensor::empty({pieces_}, DType::f64, device);
}

void FlatPieces::measure(const Tensor& gradient, double clip, const Tensor& squares, const Tensor& numbers,
                         const std::function<void(const Tensor&)>& sum_over_ranks) const {
  const Device device = gradient.device();
  const int64_t parameters = int64_t(ranges_.size());
  dispatch(gradient.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bf16>)
      map_rows(device, pieces_, PieceSquares<T>{gradient.data<T>(), reinterpret_cast<const Piece*>(bounds_.raw()), partial_.data<double>()});
  });
  map_rows(device, parameters, ParameterSquares{partial_.data<double>(), first_piece_.data<int32_t>(), squares.data<double>()});
  if (sum_over_ranks) sum_over_ranks(squares);
  map_rows(device, 1, Clip{squares.data<double>(), parameters, clip, numbers.data<float>()});
}

void FlatPieces::adamw(const AdamW& s, const Tensor& numbers) const {
  dispatch(s.weights.dtype(), [&]<class T>() {
    if constexpr (std::is_same_v<T, bf16>) check(false, "[adamw] weights and gradients are kept in f32 or f64");
    else
      map_rows(s.weights.device(), pieces_,
               Update<T>{s.gradient.data<T>(), s.weights.data<T>(), s.m.data<T>(), s.v.data<T>(), s.ema ? s.ema.data<T>() : nullptr,
                         reinterpret_cast<const Piece*>(bounds_.raw()), s.decay.data<float>(), numbers.data<float>(), T(s.beta1), T(s.beta2), T(s.eps),
                         T(s.ema_decay)});
  });
}

Tensor FlatPieces::gather_table(const std::vector<int>& which) const {
  std::vector<int32_t> table;
  int32_t at = 0;
  for (const int p : which) {
    const FlatRange& r = ranges_[size_t(p)];
    table.insert(table.end(), {int32_t(r.begin), int32_t(r.end), at});
    at += int32_t(r.end - r.begin);
  }
  return Tensor::from(Shape{int64_t(which.size()), 3}, table, DType::i32, bounds_.device());
}

void FlatPieces::gather(const Tensor& flat, const Tensor& table, const Tensor& packed) const {
  dispatch(flat.dtype(), [&]<class T>() { map_rows(flat.device(), table.dim(0), Gather<T>{flat.data<T>(), table.data<int32_t>(), packed.data<T>()}); });
}
