// fuse.h: a model for inference: norms over the batch, and what stands in front of weights, folded into the linear maps around them.
#pragma once
#include "train/training.h"

// The same map with parts.norm = "none" if its norms were over the batch, and parts.weight = "plain". Norms over tokens stay.
Recipe fused_recipe(const Training& source);

// A model of that recipe with the folded weights; computed in f64. Fails with one sentence where there is nothing to fold, or where a norm
// has readers that are not linear. Not meant for further training: the statistics are constants in it.
std::unique_ptr<Training> fuse(Training& source);

// The largest difference between the logits of two models on a made-up batch, as a part of the largest logit.
double logit_difference(Training& a, Training& b);
