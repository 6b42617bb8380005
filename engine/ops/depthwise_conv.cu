// y[b, h, w, c] = bias[c] + sum over i, j of weight[c, i, j] * x[b, h + i - K/2, w + j - K/2, c], and gelu of it.
// PyTorch: conv2d(x, weight, bias, padding=K//2, groups=C) on channels-last maps. And the sum skip x + drop(alpha * gelu) of LipsFormer's second branch.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/ops/depthwise_conv_cpu.h"
#include "engine/ops/depthwise_conv_cuda.h"
#include "engine/ops/residual.h"
#include "engine/profile.h"

namespace {

using namespace depthwise;

Sizes sizes_of(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check(x.shape().rank() == 4 && x.size() > 0, "[", op, "] x must be [B, H, W, C] and not empty, given ", x.shape());
  check(weight.shape().rank() == 4 && weight.dim(0) == x.dim(3) && weight.dim(1) == 1, "[", op, "] x is ", x.shape(),
        ": weight must be [C, 1, K, K], given ", weight.shape());
  check(weight.dim(2) == weight.dim(3) && weight.dim(2) % 2 == 1, "[", op, "] the kernel must be square and odd, not ",
        weight.shape());
  check(!bias || bias.size() == x.dim(3), "[", op, "] x is ", x.shape(), ": bias must be [C], given ", bias.shape());
  check(weight.device() == x.device() && (!bias || bias.device() == x.device()), "[", op,
        "] x, weight and bias must be on one device");
  return {x.dim(0), x.dim(1), x.dim(2), x.dim(3), int(weight.dim(2))};
}

// f(channel): its taps into the packed layout. Channels that only fill up the last block are zero.
template <class T, class C> struct PackTaps {
  Sizes s;
  const T* weight;
  C* packed;
  HD void operator()(int64_t c) const {
    const bool real = c < s.channels;
    for (int i = 0; i < s.taps(); i++) packed[s.packed(c, i)] = real ? C(Compute<T>(weight[c * s.taps() + i])) : C(0);
  }
};

// f(channel): its number of a vector into a slot; `otherwise` where there is no vector.
template <class T, class C> struct PackVector {
  Sizes s;
  const T* vector;   // or null
  int slot;
  C otherwise;
  bool one;          // the vector is one number for all channels
  C* packed;
  HD void operator()(int64_t c) const {
    packed[s.packed(c, slot)] = vector && c < s.channels ? C(Compute<T>(vector[one ? 0 : c])) : otherwise;
  }
};

template <class C> Tensor pack(const Sizes& s, const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const Tensor packed = Tensor::empty({s.packed_size()}, dtype_of<C>, weight.device());
  const int64_t channels = s.blocks() * block;
  count_kernel({weight, bias, alpha}, {packed});
  dispatch(weight.dtype(), [&]<class T>() {
    map(weight.device(), channels, PackTaps<T, C>{s, weight.data<T>(), packed.data<C>()});
  });
  const auto pack_vector = [&](const Tensor& vector, int slot, C otherwise) {
    dispatch(vector ? vector.dtype() : dtype_of<C>, [&]<class T>() {
      const bool one = vector && vector.size() == 1;
      map(weight.device(), channels, PackVector<T, C>{s, vector ? vector.data<T>() : nullptr, slot, otherwise, one, packed.data<C>()});
    });
  };
  pack_vector(bias, s.bias_slot(), 0);
  pack_vector(alpha, s.alpha_slot(), 1);
  return packed;
}

// f(channel * count + i): the gradient of tap first + i, summed over the groups in order.
template <class C, class T> struct SumGroups {
  Sizes s;
  const C* partial;
  int64_t groups;
  int first, count;
  T* to;
  bool add;
  HD void operator()(int64_t entry) const {
    const int64_t from = s.packed(entry / count, first + entry % count);
    C sum = 0;
    for (int64_t g = 0; g < groups; g++) sum += partial[g * s.packed_size() + from];
    to[entry] = T((add ? Compute<T>(to[entry]) : Compute<T>(0)) + Compute<T>(sum));
  }
};

template <class C>
void add_groups(const Sizes& s, const Tensor& partial, int first, int count, const Tensor& parameter) {
  if (!parameter || !parameter.wants_grad()) return;
  auto [grad, beta] = into(parameter);
  count_kernel({int64_t(partial.bytes()) * count / s.slots()}, {Into{grad, beta}});
  dispatch(grad.dtype(), [&]<class T>() {
    map(grad.device(), s.channels * count,
        SumGroups<C, T>{s, partial.data<C>(), partial.dim(0), first, count, grad.data<T>(), beta != 0});
  });
}

// The sums of the branch by channel are those of alpha.
template <class C> void add_alpha(const Sizes& s, const Tensor& partial, const Tensor& alpha) {
  if (!alpha || !alpha.wants_grad()) return;
  const Tensor sums = Tensor::empty({1, s.channels}, dtype_of<C>, partial.device());
  count_kernel({int64_t(partial.bytes()) / s.slots()}, {sums});
  map(partial.device(), s.channels, SumGroups<C, C>{s, partial.data<C>(), partial.dim(0), s.alpha_slot(), 1, sums.data<C>(), false});
  residual_sum::add_alpha_gradient<C>(sums, alpha);
}

// What stands around gelu(conv(x)) in the sum skip x + drop(alpha * gelu(conv(x))).
struct Branch {
  bool summed = false;   // else there is no sum, and nothing stands around it
  Tensor alpha;
  DropPath drop;
  double skip = 1;
};

template <class T, class S> void convolve(const Sizes& s, const Tensor& x, const Tensor& packed, const DropFactor& drop, const S& store) {
  using C = Compute<T>;
  if (dry_run()) return;
  if (x.device().kind == Device::cuda)
    convolve_cuda(s, x.data<T>(), packed.data<C>(), drop, store);
  else
    convolve_cpu(s, Load<T>{x.data<T>()}, packed.data<C>(), drop, store);
}

template <bool through_gelu, class T>
void gradients(const Sizes& s, Wanted wanted, const Tensor& dy, const Tensor& pre, const Tensor& x, const Tensor& packed, const DropFactor& drop,
               const Store<T>& store, const Tensor& partial) {
  using C = Compute<T>;
  if (dry_run()) return;
  const Gradient<T, through_gelu> load{dy.data<T>(), through_gelu ? pre.data<T>() : nullptr};
  if (x.device().kind == Device::cuda)
    backward_cuda(s, wanted, load, x.data<T>(), packed.data<C>(), drop, store, partial.data<C>());
  else
    backward_cpu(s, wanted, load, Load<T>{x.data<T>()}, packed.data<C>(), drop, store, partial.data<C>());
}

// Partial sums of the gradients: of every group on the CPU, of all on CUDA, where many threads add them first.
template <class C> Tensor gathered(const Tensor& partial) {
  if (partial.device().kind == Device::cpu && !dry_run()) return partial;
  const Tensor total = Tensor::empty({1, partial.dim(1)}, partial.dtype(), partial.device());
  count_kernel({partial}, {total});
  sum_chunks<C>(partial, total);
  return total;
}

template <class T>
void count_backward(const Sizes& s, Wanted wanted, const Tensor& dy, const Tensor& pre, const Tensor& x, const Tensor& packed, const Into& dx,
                    const Tensor& partial) {
  if (strips<T>(s)) {   // in one pass
    const int64_t macs = s.macs() * (int(wanted.dx) + int(wanted.sums));
    return count_kernel({dy, pre, wanted.sums ? x : Tensor(), packed}, {dx, wanted.sums ? partial : Tensor()}, macs, Units::vector);
  }
  if (wanted.dx) count_kernel({dy, pre, packed}, {dx}, s.macs(), Units::vector);
  if (wanted.sums) count_kernel({dy, pre, x, packed}, {partial}, s.macs(), Units::vector);
}

// The gradients of x, weight, bias and alpha. `pre` is what the gelu was taken of, or empty if there was none.
void backward(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& pre, const Branch& branch, const Tensor& dy) {
  const Sizes s = sizes_of(op, x, weight, bias);
  const auto wants = [](const Tensor& t) { return t && t.wants_grad(); };
  const Wanted wanted{x.wants_grad(), wants(weight) || wants(bias) || wants(branch.alpha)};
  const Into dx = wanted.dx ? into(x) : Into{};
  check(!wanted.dx || dx.grad.dtype() == x.dtype(), "[", op, "] x is ", x.dtype(), ": its gradient must be too, not ",
        dx.grad.dtype());
  const DropFactor drop = drop_factor(branch.drop, x);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const Tensor packed = pack<C>(s, weight, bias, branch.alpha);
    const int64_t groups = x.device().kind == Device::cuda || dry_run() ? gradient_groups_cuda<T>(s) : gradient_groups_cpu(s);
    const Tensor partial = Tensor::empty({groups, s.packed_size()}, dtype_of<C>, x.device());
    count_backward<T>(s, wanted, dy, pre, x, packed, dx, partial);
    const Store<T> store{wanted.dx ? dx.grad.data<T>() : nullptr, dx.beta != 0, branch.summed ? dy.data<T>() : nullptr, C(branch.skip)};
    if (pre) gradients<true>(s, wanted, dy, pre, x, packed, drop, store, partial);
    else gradients<false>(s, wanted, dy, pre, x, packed, drop, store, partial);
    if (!wanted.sums) return;
    const Tensor sums = gathered<C>(partial);
    add_groups<C>(s, sums, 0, s.taps(), weight);
    add_groups<C>(s, sums, s.bias_slot(), 1, bias);
    add_alpha<C>(s, sums, branch.alpha);
  });
}

// gelu(conv(x)), or the sum of x and it.
Tensor with_gelu(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Branch& branch) {
  const Sizes s = sizes_of(op, x, weight, bias);
  residual_sum::check_alpha(op, branch.alpha, s.channels);
  const bool keep = open_tape() && (x.wants_grad() || weight.wants_grad() || bias.wants_grad() || branch.alpha.wants_grad());
  const Tensor pre = keep ? Tensor::like(x) : Tensor();
  Tensor y = Tensor::like(x);
  count_kernel({x, weight, bias, branch.alpha}, {y, pre}, s.macs(), Units::vector);
  const DropFactor drop = drop_factor(branch.drop, x);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const StoreGelu<T> store{y.data<T>(), keep ? pre.data<T>() : nullptr, branch.summed ? x.data<T>() : nullptr, C(branch.skip)};
    convolve<T>(s, x, pack<C>(s, weight, bias, branch.alpha), drop, store);
  });
  record(op, y, {x, weight, bias, branch.alpha}, [=](const Tensor& dy) { backward(op, x, weight, bias, pre, branch, dy); });
  return y;
}

}  // namespace

Tensor depthwise_conv(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const OpRange range("depthwise_conv");
  const Sizes s = sizes_of("depthwise_conv", x, weight, bias);
  Tensor y = Tensor::like(x);
  count_kernel({x, weight, bias}, {y}, s.macs(), Units::vector);
  dispatch(x.dtype(), [&]<class T>() { convolve<T>(s, x, pack<Compute<T>>(s, weight, bias, {}), drop_factor({}, x), Store<T>{y.data<T>()}); });
  record("depthwise_conv", y, {x, weight, bias}, [=](const Tensor& dy) { backward("depthwise_conv", x, weight, bias, {}, {}, dy); });
  return y;
}

Tensor depthwise_conv_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const OpRange range("depthwise_conv_gelu");
  return with_gelu("depthwise_conv_gelu", x, weight, bias, {});
}

Tensor depthwise_conv_gelu_residual(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha, const DropPath& drop, double skip) {
  const OpRange range("depthwise_conv_gelu_residual");
  return with_gelu("depthwise_conv_gelu_residual", x, weight, bias, {true, alpha, drop, skip});
}
