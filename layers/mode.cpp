// mode.cpp: what is measured in passing when somebody asks.
#include "layers/mode.h"

#include <algorithm>

void Mode::note_branch(const Tensor& f) const {
  if (!branch_variances) return;
  double sum = 0, squares = 0;
  const std::vector<double> values = f.values();
  for (const double v : values) sum += v, squares += v * v;
  const double n = double(values.size()), mean = sum / n;
  branch_variances->push_back(squares / n - mean * mean);
}

void EntropySums::note(int attention, int first_head, const Tensor& entropy, const Tensor& x) {
  const int64_t batch = x.dim(0), n = x.size() / batch;
  const float* means = entropy.data<float>();
  for (int64_t h = 0; h < entropy.size(); h++) sums[first_head + h] += double(means[h]) * double(batch);
  dispatch(x.dtype(), [&]<class T>() {
    for (int64_t b = 0; b < batch; b++) {
      const T* sample = x.data<T>() + b * n;
      double squares = 0;
      for (int64_t begin = 0; begin < n; begin += 4096) {   // short runs in T, their sums in double
        const int64_t end = std::min(n, begin + 4096);
        Compute<T> part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = begin; i < end; i++) part += Compute<T>(sample[i]) * Compute<T>(sample[i]);
        squares += double(part);
      }
      input_squares[attention] = std::max(input_squares[attention], squares);
    }
  });
}

void EntropySums::add(const EntropySums& other) {
  samples += other.samples;
  for (size_t h = 0; h < sums.size(); h++) sums[h] += other.sums[h];
  for (size_t a = 0; a < input_squares.size(); a++) input_squares[a] = std::max(input_squares[a], other.input_squares[a]);
}
