// blas.cpp: which library makes a product, and what must hold whichever it is.
#include "engine/blas.h"

#include "engine/profile.h"

bool& allow_tf32() {
  static bool allowed = false;
  return allowed;
}

void gemm(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c, const Epilogue& epilogue) {
  check(a.size() == g.m * g.k && b.size() == g.k * g.n && c.size() == g.m * g.n, "[gemm] ", g.m, " x ", g.n, " x ", g.k,
        " does not fit ", a.shape(), ", ", b.shape(), ", ", c.shape());
  check(!epilogue.bias || epilogue.bias.size() == g.n, "[gemm] a bias of ", epilogue.bias.shape(), " for ", g.n, " columns");
  check(!epilogue.scale || epilogue.scale.size() == 1, "[gemm] the scale must be one number, given ", epilogue.scale.shape());
  const Tensor& sums = epilogue.bias_gradient;
  check(!sums || (sums.size() == g.m && sums.dtype() == DType::f32 && a.dtype() != DType::f64 && g.transpose_a && !epilogue.bias),
        "[gemm] the gradient of a bias is f32 [", g.m, "] beside a transposed A, given ", sums.shape(), ' ', sums.dtype());
  check(a.device() == c.device() && b.device() == c.device(), "[gemm] operands on ", a.device(), " and ", b.device(), ", result on ", c.device());
  count_kernel({a, b, epilogue.bias}, {Into{c, g.beta}, sums}, g.m * g.n * g.k);
  if (dry_run()) return;
  if (c.device().kind == Device::cuda) gemm_device(g, a, b, c, epilogue);
  else gemm_host(g, a, b, c, epilogue);
}
