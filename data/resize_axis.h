// resize_axis.h: which pixels each output of a resized axis sums, and with what weights.
#pragma once
#include <cstdint>
#include <vector>

enum class Interpolation { bilinear, bicubic };

constexpr int resize_precision = 22;   // bits behind the point of a weight
constexpr int resize_low_bits = 12;    // of its low part, which is from -2^11 to 2^11 - 1

// Output i sums taps [first, first + count). A weight is high * 2^12 + low, which fit into 16 bits each. Two taps go together: a pair is
// their two weights, the first one in the lower half. Behind the last tap the weights are zero.
struct ResizeAxis {
  int pairs = 0;                      // of every output: enough for the most taps of any
  std::vector<int> first, count;      // [outputs]
  std::vector<int32_t> high, low;     // [outputs, pairs]
  std::vector<double> weight;         // of one output, before it is rounded
};

// What is resized of n pixels: [begin, begin + length) of them. Taps reach beyond it where there are pixels.
struct Stretch {
  double begin, length;
};

// Outputs [begin, begin + outputs) of an axis that goes from the stretch of n pixels to m, the last one first where mirrored.
void make_axis(int n, Stretch, int m, int begin, int outputs, Interpolation, bool mirrored, ResizeAxis& axis);
