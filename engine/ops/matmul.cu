// matmul: y_b = a_b b_b, or a_b b_b^T, for each b of a batch: [B, M, K] x [B, K, N] (or [B, N, K]) -> [B, M, N].
#include "engine/blas.h"
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_b) {
  const OpRange range("matmul");
  check(a.shape().rank() == 3 && b.shape().rank() == 3 && a.dim(0) == b.dim(0), "[matmul] two batches expected, given ", a.shape(), " and ", b.shape());
  const int64_t batch = a.dim(0), m = a.dim(1), k = a.dim(2), n = b.dim(transpose_b ? 1 : 2);
  check(b.dim(transpose_b ? 2 : 1) == k, "[matmul] inner dimensions must agree, given ", a.shape(), " and ", b.shape());
  Tensor y = Tensor::empty({batch, m, n}, a.dtype(), a.device());
  for (int64_t i = 0; i < batch; i++)
    gemm({.transpose_b = transpose_b, .m = m, .n = n, .k = k}, a.slice(i, 1), b.slice(i, 1), y.slice(i, 1));
  record("matmul", y, {a, b}, [=](const Tensor& dy) {
    const Into da = a.wants_grad() ? into(a) : Into{Tensor(), 0};
    const Into db = b.wants_grad() ? into(b) : Into{Tensor(), 0};
    for (int64_t i = 0; i < batch; i++) {
      if (da.grad)
        gemm({.transpose_b = !transpose_b, .m = m, .n = k, .k = n, .beta = da.beta}, dy.slice(i, 1), b.slice(i, 1), da.grad.slice(i, 1));
      if (db.grad && transpose_b)
        gemm({.transpose_a = true, .m = n, .n = k, .k = m, .beta = db.beta}, dy.slice(i, 1), a.slice(i, 1), db.grad.slice(i, 1));
      if (db.grad && !transpose_b)
        gemm({.transpose_a = true, .m = k, .n = n, .k = m, .beta = db.beta}, a.slice(i, 1), dy.slice(i, 1), db.grad.slice(i, 1));
    }
  });
  return y;
}
