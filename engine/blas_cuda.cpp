// blas_cuda.cpp: the only file that knows cuBLASLt. One workspace a device; the algorithm of each shape is chosen once, by time, and kept.
#include <cublasLt.h>

#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "engine/blas.h"
#include "engine/capture_rules.h"
#include "engine/column_sums.h"
#include "engine/device_cuda.h"
#include "engine/blas_algorithms_cuda.h"

namespace {

constexpr size_t workspace_bytes = size_t(32) << 20;
constexpr int candidates = 8, timed_runs = 3;

void lt_check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) fail(Exit::failure, "[gemm] ", call, ": ", cublasLtGetStatusString(status));
}

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::f64: return CUDA_R_64F;
    default: check(false, "[gemm] no product of ", dtype, " numbers");
  }
  return CUDA_R_32F;
}

cublasComputeType_t compute_of(DType operands) {
  if (operands == DType::f64) return CUBLAS_COMPUTE_64F;
  return operands == DType::f32 && allow_tf32() ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

// What is made once a device.
struct Library {
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  Tensor zero_one[2];   // the numbers 0 and 1 for a beta beside a scale that lies on the device; f32 and f64
  GemmAlgorithms algorithms;
  std::set<GemmAlgorithms::Key> without_sums;   // products that the library cannot make together with the gradient of a bias
  std::mutex mutex;                             // guards the two

  explicit Library(Device device) : algorithms(device) {
    cuda_check(cudaSetDevice(device.index), "cudaSetDevice");
    lt_check(cublasLtCreate(&handle), "cublasLtCreate");
    workspace = device_allocate(device, workspace_bytes);
    check(workspace != nullptr, "[gemm] no ", workspace_bytes >> 20, " MiB for the workspace on ", device);
    const ArenaScope pool(nullptr);
    zero_one[0] = Tensor::from(Shape{2}, std::vector<float>{0, 1}, DType::f32, device);
    zero_one[1] = Tensor::from(Shape{2}, std::vector<float>{0, 1}, DType::f64, device);
  }
};

Library& library_of(Device device) {
  static std::mutex mutex;
  static std::map<int, std::unique_ptr<Library>> libraries;
  const std::lock_guard lock(mutex);
  std::unique_ptr<Library>& library = libraries[device.index];
  if (!library) library = std::make_unique<Library>(device);
  return *library;
}

// The descriptors of one product; freed with it. Row-major C = A B is column-major C^T = B^T A^T: so B comes first.
struct Problem {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;

  Problem(const Gemm& g, DType operands, DType out, const Tensor& bias, const Tensor& bias_gradient, bool scale_on_device) {
    const DType compute = operands == DType::f64 ? DType::f64 : DType::f32;
    lt_check(cublasLtMatmulDescCreate(&product, compute_of(operands), type_of(compute)), "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (scale_on_device) set(CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
    if (const Tensor& vector = bias ? bias : bias_gradient) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_BGRADB);   // A is the second operand
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(vector.raw()));
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(vector.dtype()));
    }
    first = layout(operands, g.transpose_b ? g.k : g.n, g.transpose_b ? g.n : g.k);
    second = layout(operands, g.transpose_a ? g.m : g.k, g.transpose_a ? g.k : g.m);
    result = layout(out, g.n, g.m);
  }
  ~Problem() {
    cublasLtMatrixLayoutDestroy(result);
    cublasLtMatrixLayoutDestroy(second);
    cublasLtMatrixLayoutDestroy(first);
    cublasLtMatmulDescDestroy(product);
  }
  Problem(const Problem&) = delete;

 private:
  template <class T> void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    lt_check(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }
  static cublasLtMatrixLayout_t layout(DType dtype, int64_t rows, int64_t columns) {   // column-major, packed
    cublasLtMatrixLayout_t made = nullptr;
    lt_check(cublasLtMatrixLayoutCreate(&made, type_of(dtype), uint64_t(rows), uint64_t(columns), rows), "cublasLtMatrixLayoutCreate");
    return made;
  }
};

uint32_t alignment_of(const void* data) {
  uint32_t bytes = 256;
  while (uintptr_t(data) % bytes) bytes /= 2;
  return bytes;
}

// A product with all that it needs; run() may be called again and again.
struct Call {
  Library& library;
  const Problem& problem;
  const void *alpha, *beta;
  const Tensor &first, &second, &result;

  cublasStatus_t run(const cublasLtMatmulAlgo_t& algorithm, const Tensor& into) const {
    return cublasLtMatmul(library.handle, problem.product, alpha, first.raw(), problem.first, second.raw(), problem.second, beta, into.raw(),
                          problem.result, into.raw(), problem.result, &algorithm, library.workspace, workspace_bytes, compute_stream());
  }

  std::vector<cublasLtMatmulHeuristicResult_t> suggestions() const {
    cublasLtMatmulPreference_t preference = nullptr;
    lt_check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      lt_check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(first.raw()));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(second.raw()));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(result.raw()));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(result.raw()));
    std::vector<cublasLtMatmulHeuristicResult_t> found(candidates);
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library.handle, problem.product, problem.first, problem.second, problem.result,
                                                                 problem.result, preference, candidates, found.data(), &count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
    lt_check(status, "cublasLtMatmulAlgoGetHeuristic");
    found.resize(size_t(count));
    return found;
  }

  // The fastest of those that the library suggests, timed on a result of its own: the real one may be accumulated into. None if none of them runs.
  std::optional<cublasLtMatmulAlgo_t> fastest() const {
    const std::vector<cublasLtMatmulHeuristicResult_t> found = suggestions();
    const Tensor scratch = Tensor::like(result);
    cudaEvent_t start, stop;
    cuda_check(cudaEventCreate(&start), "cudaEventCreate");
    cuda_check(cudaEventCreate(&stop), "cudaEventCreate");
    size_t best = 0;
    float least = -1;
    for (size_t i = 0; i < found.size(); i++) {
      if (run(found[i].algo, scratch) != CUBLAS_STATUS_SUCCESS) {   // warm
        cudaGetLastError();                                          // forget what it left
        continue;
      }
      cuda_check(cudaEventRecord(start, compute_stream()), "cudaEventRecord");
      for (int r = 0; r < timed_runs; r++) run(found[i].algo, scratch);
      cuda_check(cudaEventRecord(stop, compute_stream()), "cudaEventRecord");
      cuda_check(cudaEventSynchronize(stop), "cudaEventSynchronize");
      float ms = 0;
      cuda_check(cudaEventElapsedTime(&ms, start, stop), "cudaEventElapsedTime");
      if (least >= 0 && ms >= least) continue;
      least = ms;
      best = i;
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    if (least < 0) return {};
    return found[best].algo;
  }
};

// The sums by a pass of their own.
void gemm_and_sums(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c, const Epilogue& epilogue) {
  epilogue.bias_gradient.copy_from(column_sums(a.view({g.k, g.m})).view(epilogue.bias_gradient.shape()));
  gemm_device(g, a, b, c, {.scale = epilogue.scale});
}

}  // namespace

void gemm_device(const Gemm& g, const Tensor& given_a, const Tensor& given_b, const Tensor& c, const Epilogue& epilogue) {
  if (g.m == 0 || g.n == 0) return;
  check(g.k > 0, "[gemm] an empty sum on a GPU");
  cuda_check(cudaSetDevice(c.device().index), "cudaSetDevice");
  const bool narrow = given_a.dtype() == DType::bf16 && given_b.dtype() == DType::bf16;   // else the finer one decides
  const DType operands = c.dtype() == DType::f64 ? DType::f64 : narrow ? DType::bf16 : DType::f32;
  if (!narrow && c.dtype() == DType::bf16) {   // no product of the library goes from f32 to bf16
    const Tensor wide = g.beta == 0 ? Tensor::empty(c.shape(), DType::f32, c.device()) : c.to(DType::f32);
    gemm_device(g, given_a, given_b, wide, epilogue);
    c.copy_from(wide.to(DType::bf16));
    return;
  }
  const Tensor& sums = epilogue.bias_gradient;
  if (sums && c.dtype() != DType::f32) return gemm_and_sums(g, given_a, given_b, c, epilogue);   // the library has both in one type
  const Tensor a = given_a.to(operands), b = given_b.to(operands);   // no copy where they are that already
  const Tensor bias = epilogue.bias ? epilogue.bias.to(c.dtype()) : Tensor();
  check(!epilogue.scale || g.alpha == 1, "[gemm] a scale on the device leaves no alpha beside it");
  Library& library = library_of(c.device());
  const Problem problem(g, operands, c.dtype(), bias, sums, bool(epilogue.scale));
  const bool wide = operands == DType::f64;
  const float alpha32 = float(g.alpha), beta32 = float(g.beta);
  const void *alpha = wide ? static_cast<const void*>(&g.alpha) : &alpha32, *beta = wide ? static_cast<const void*>(&g.beta) : &beta32;
  if (epilogue.scale) {
    check(g.beta == 0 || g.beta == 1, "[gemm] beside a scale on the device beta is 0 or 1, given ", g.beta);
    alpha = epilogue.scale.raw();
    beta = library.zero_one[wide].raw() + size_t(g.beta) * size_of(wide ? DType::f64 : DType::f32);
  }
  const Call call{library, problem, alpha, beta, b, a, c};
  const GemmAlgorithms::Key key{g.m, g.n, g.k, g.transpose_a, g.transpose_b, g.beta != 0, int(operands), int(c.dtype()), sums ? 2 : bool(bias),
                                bool(epilogue.scale), operands == DType::f32 && allow_tf32(), alignment_of(a.raw()),
                                alignment_of(b.raw()), alignment_of(c.raw())};
  const cublasLtMatmulAlgo_t* algorithm = nullptr;
  {
    const std::lock_guard lock(library.mutex);
    algorithm = library.algorithms.find(key);
    if (!algorithm && !library.without_sums.count(key)) {
      forbid_in_capture(c.device(), "a product of a shape that no step before had");
      const std::optional<cublasLtMatmulAlgo_t> fastest = call.fastest();
      check(fastest || sums, "[gemm] cuBLASLt knows no way to make this product that runs");
      if (fastest) algorithm = library.algorithms.keep(key, *fastest);
      else library.without_sums.insert(key);
    }
  }
  if (!algorithm) return gemm_and_sums(g, a, b, c, epilogue);
  lt_check(call.run(*algorithm, c), "cublasLtMatmul");
}
