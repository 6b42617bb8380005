// mode.cpp: what is measured in passing when somebody asks.
#include "layers/mode.h"

#include <algorithm>

#include "engine/measures.h"

void Mode::note_branch(const Tensor& f) const {
  if (!branch_variances) return;
  double sum = 0, squares = 0;
  const std::vector<double> values = f.values();
  for (const double v : values) sum += v, squares += v * v;
  const double n = double(values.size()), mean = sum / n;
  branch_variances->push_back(squares / n - mean * mean);
}

void EntropySums::note(int attention, int first_head, const Tensor& entropy, const Tensor& x) {
  if (x.device() != Device{} && !report) return note(attention, first_head, entropy.to(Device{}), x.to(Device{}));
  if (report) return note_attention(entropy, x, report, heads_at + first_head, heads_at + int64_t(sums.size()) + 2 * attention);
  const int64_t batch = x.dim(0), width = x.dim(-1), tokens = x.size() / (batch * width);
  const float* means = entropy.data<float>();
  for (int64_t h = 0; h < entropy.size(); h++) sums[first_head + h] += double(means[h]) * double(batch);
  dispatch(x.dtype(), [&]<class T>() {
    for (int64_t b = 0; b < batch; b++) {
      InputSquares input;
      for (int64_t t = 0; t < tokens; t++) {
        const T* token = x.data<T>() + (b * tokens + t) * width;
        Compute<T> squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; i++) squares += Compute<T>(token[i]) * Compute<T>(token[i]);
        input.sample += double(squares);
        input.token = std::max(input.token, double(squares));
      }
      inputs[attention].take(input);
    }
  });
}

void EntropySums::add(const EntropySums& other) {
  samples += other.samples;
  for (size_t h = 0; h < sums.size(); h++) sums[h] += other.sums[h];
  for (size_t a = 0; a < inputs.size(); a++) inputs[a].take(other.inputs[a]);
}
