// blas_algorithms_cuda.h: which of cuBLASLt's algorithms makes a product of a shape, remembered from run to run: the choice is by time, and a
// choice that changed would change last bits.
#pragma once
#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>

#include "engine/device.h"

class GemmAlgorithms {
 public:
  // m, n, k, transposed a, b, accumulates, types of operands and result, bias (1) or its gradient (2), scale, tf32, alignments of a, b, c.
  using Key = std::array<int64_t, 14>;
  // Reads what earlier runs chose on such a GPU with this version of the library.
  explicit GemmAlgorithms(Device device);
  const cublasLtMatmulAlgo_t* find(const Key& key) const;
  // Remembers it, on disk too; where nothing can be written, for this run.
  const cublasLtMatmulAlgo_t* keep(const Key& key, const cublasLtMatmulAlgo_t& algorithm);

 private:
  std::filesystem::path file_;
  std::map<Key, cublasLtMatmulAlgo_t> known_;
};
