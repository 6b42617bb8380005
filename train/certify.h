// certify.h: which images no change of at most a given l2 length can turn into another class, and an attack that tries.
#pragma once
#include <vector>

#include "train/model_bounds.h"

// What is certified is the map of the weights as they are, in exact arithmetic, on images with pixels in [0, 1]; lengths are in pixels, before
// normalisation, over the whole image. With L the bound up to the features and w_i the rows of the classifier, a change of length r moves
// z_i - z_j by at most |w_i - w_j| L r, so an image of class y keeps it up to min_j (z_y - z_j) / (|w_y - w_j| L)
// (Tsuzuku et al. 2018).
class Certifier {
 public:
  // The norms are proved here. A model that has no bound certifies nothing; bound().blame says why.
  explicit Certifier(Training& training);

  // Images under test: normalised patch rows [B, N, C * P * P] in the type of the weights, with what they should be; -1: does not count.
  struct Images {
    Tensor rows;
    std::vector<int64_t> labels;
  };
  struct Verdict {
    std::vector<int64_t> predicted;
    std::vector<double> radius;   // within which the prediction is certain; 0: none
  };
  Verdict judge(const Images& images) const;

  // Projected gradient descent on the margin, within an l2 ball of pixels and within [0, 1]: for each image whether it found a change of length
  // at most `radius` that takes the prediction away from the label.
  std::vector<char> broken(const Images& images, double radius, int steps, uint64_t seed) const;

  double lipschitz() const { return lipschitz_; }   // pixels to features, l2
  const ModelBound& bound() const { return bound_; }
  bool by_tokens() const { return by_tokens_; }     // whether the rms bound gave it

 private:
  Tensor logits(const Tensor& rows) const;
  double pixel_scale(size_t i) const;   // std of the channel of number i of a row

  Training& training_;
  ModelBound bound_;
  double lipschitz_ = 0;
  bool by_tokens_ = false;
  std::vector<double> apart_;   // |w_i - w_j| [classes, classes]
};
