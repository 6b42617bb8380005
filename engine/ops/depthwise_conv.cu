// y[b, h, w, c] = bias[c] + sum over i, j of weight[c, i, j] * x[b, h + i - K/2, w + j - K/2, c], and gelu of it.
// PyTorch: conv2d(x, weight, bias, padding=K//2, groups=C) on channels-last maps.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/ops/depthwise_conv_cpu.h"
#include "engine/ops/depthwise_conv_cuda.h"
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

template <class T, class C> struct PackBias {
  Sizes s;
  const T* bias;   // or null
  C* packed;
  HD void operator()(int64_t c) const {
    packed[s.packed(c, s.taps())] = bias && c < s.channels ? C(Compute<T>(bias[c])) : C(0);
  }
};

template <class C> Tensor pack(const Sizes& s, const Tensor& weight, const Tensor& bias) {
  const Tensor packed = Tensor::empty({s.packed_size()}, dtype_of<C>, weight.device());
  const int64_t channels = s.blocks() * block;
  count_kernel({weight, bias}, {packed});
  dispatch(weight.dtype(), [&]<class T>() {
    map(weight.device(), channels, PackTaps<T, C>{s, weight.data<T>(), packed.data<C>()});
  });
  dispatch(bias ? bias.dtype() : dtype_of<C>, [&]<class T>() {
    map(weight.device(), channels, PackBias<T, C>{s, bias ? bias.data<T>() : nullptr, packed.data<C>()});
  });
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
  count_kernel({int64_t(partial.bytes()) * count / (s.taps() + 1)}, {Into{grad, beta}});
  dispatch(grad.dtype(), [&]<class T>() {
    map(grad.device(), s.channels * count,
        SumGroups<C, T>{s, partial.data<C>(), partial.dim(0), first, count, grad.data<T>(), beta != 0});
  });
}

template <class T, class S> void convolve(const Sizes& s, const Tensor& x, const Tensor& packed, const S& store) {
  using C = Compute<T>;
  if (dry_run()) return;
  if (x.device().kind == Device::cuda)
    convolve_cuda(s, x.data<T>(), packed.data<C>(), false, store);
  else
    convolve_cpu(s, Load<T>{x.data<T>()}, packed.data<C>(), store);
}

struct Slope {   // the gradient before the gelu
  template <class C> HD C operator()(C pre, C dy) const { return dy * gelu_slope(pre); }
};

// The way back on one device. The CPU goes through the gelu while it fills its tiles; CUDA reads dy twice, so it does that once before.
template <class T, class S>
void gradients(const Sizes& s, Wanted wanted, const Tensor& dy, const Tensor& pre, const Tensor& x, const Tensor& packed, const S& store_dx,
               const Tensor& partial) {
  using C = Compute<T>;
  if (dry_run()) return;
  C* sums = partial.data<C>();
  if (x.device().kind == Device::cpu) {
    const Load<T> load_x{x.data<T>()};
    if (pre) backward_cpu(s, wanted, LoadThroughGelu<T>{dy.data<T>(), pre.data<T>()}, load_x, packed.data<C>(), store_dx, sums);
    else backward_cpu(s, wanted, Load<T>{dy.data<T>()}, load_x, packed.data<C>(), store_dx, sums);
    return;
  }
  const Tensor before = pre ? Tensor::like(dy) : dy;
  if (pre) map_values(dy.device(), dy.size(), before.data<T>(), false, Slope{}, pre.data<T>(), dy.data<T>());
  if (wanted.dx) convolve_cuda(s, before.data<T>(), packed.data<C>(), true, store_dx);
  if (wanted.sums) sums_cuda(s, before.data<T>(), x.data<T>(), sums);
}

// Partial sums of the gradients: of every group on the CPU, of all on CUDA, where many threads add them first.
template <class C> Tensor gathered(const Tensor& partial) {
  if (partial.device().kind == Device::cpu && !dry_run()) return partial;
  const Tensor total = Tensor::empty({1, partial.dim(1)}, partial.dtype(), partial.device());
  count_kernel({partial}, {total});
  sum_chunks<C>(partial, total);
  return total;
}

// The gradients of x, weight and bias. `pre` is what the gelu was taken of, or empty if there was none.
void backward(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& pre,
              const Tensor& dy) {
  const Sizes s = sizes_of(op, x, weight, bias);
  const Device device = x.device();
  const Wanted wanted{x.wants_grad(), weight.wants_grad() || (bias && bias.wants_grad())};
  const Into dx = wanted.dx ? into(x) : Into{};
  check(!wanted.dx || dx.grad.dtype() == x.dtype(), "[", op, "] x is ", x.dtype(), ": its gradient must be too, not ",
        dx.grad.dtype());
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const Tensor packed = pack<C>(s, weight, bias);
    const int64_t groups = device.kind == Device::cuda || dry_run() ? gradient_groups_cuda<T>(s) : gradient_groups_cpu(s);
    const Tensor partial = Tensor::empty({groups, s.packed_size()}, dtype_of<C>, device);
    if (pre) count_kernel({dy, pre}, {dy});   // the way through the gelu
    if (wanted.dx) count_kernel({dy, packed}, {dx}, s.macs(), Units::vector);
    if (wanted.sums) count_kernel({dy, x}, {partial}, s.macs(), Units::vector);
    T* to = wanted.dx ? dx.grad.data<T>() : nullptr;
    if (dx.beta != 0)
      gradients<T>(s, wanted, dy, pre, x, packed, StoreSum<T>{to}, partial);
    else
      gradients<T>(s, wanted, dy, pre, x, packed, Store<T>{to}, partial);
    if (!wanted.sums) return;
    const Tensor sums = gathered<C>(partial);
    add_groups<C>(s, sums, 0, s.taps(), weight);
    add_groups<C>(s, sums, s.taps(), 1, bias);
  });
}

}  // namespace

Tensor depthwise_conv(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const OpRange range("depthwise_conv");
  const Sizes s = sizes_of("depthwise_conv", x, weight, bias);
  Tensor y = Tensor::like(x);
  count_kernel({x, weight, bias}, {y}, s.macs(), Units::vector);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    convolve<T>(s, x, pack<C>(s, weight, bias), Store<T>{y.data<T>()});
  });
  record("depthwise_conv", y, {x, weight, bias}, [x, weight, bias](const Tensor& dy) {
    backward("depthwise_conv", x, weight, bias, {}, dy);
  });
  return y;
}

Tensor depthwise_conv_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const OpRange range("depthwise_conv_gelu");
  const Sizes s = sizes_of("depthwise_conv_gelu", x, weight, bias);
  const bool keep = open_tape() && (x.wants_grad() || weight.wants_grad() || bias.wants_grad());
  const Tensor pre = keep ? Tensor::like(x) : Tensor();
  Tensor y = Tensor::like(x);
  count_kernel({x, weight, bias}, {y, pre}, s.macs(), Units::vector);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const Tensor packed = pack<C>(s, weight, bias);
    if (keep)
      convolve<T>(s, x, packed, StoreGeluAndPre<T>{y.data<T>(), pre.data<T>()});
    else
      convolve<T>(s, x, packed, StoreGelu<T>{y.data<T>()});
  });
  record("depthwise_conv_gelu", y, {x, weight, bias}, [x, weight, bias, pre](const Tensor& dy) {
    backward("depthwise_conv_gelu", x, weight, bias, pre, dy);
  });
  return y;
}
