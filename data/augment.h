// augment.h: every random decision about an image or a batch, and how an image is rendered from its decisions.
//
// Decisions are a pure function of (seed, epoch, sample): which thread draws them and when makes no difference.
// Pixels follow torchvision and timm: crop, Pillow's resize, flip, then the policy's operations and the colour jitter.
// Normalising, erasing and mixing come later, on the device; the batch carries their parameters.
#pragma once
#include <array>
#include <optional>
#include <span>

#include "data/auto_augment.h"
#include "data/batch.h"
#include "data/decode.h"
#include "data/resize.h"
#include "engine/random.h"

struct AugmentConfig {
  int image_size = 224;
  int channels = 3;
  // Nothing: drawn for each training image, and for each operation of the policy; evaluation takes bicubic.
  std::optional<Interpolation> interpolation = Interpolation::bicubic;

  // Training: a JPEG of which a crop is shrunk to half or less is decoded at 1/2, 1/4 or 1/8, no smaller than what is needed.
  bool scaled_decode = false;

  // Training. With random_resized_crop off, the short side becomes image_size, crop_padding zeros are put around the
  // image and a window of image_size is drawn from it: the recipe for small images.
  bool random_resized_crop = true;
  double scale_min = 0.08, scale_max = 1;        // share of the area
  double ratio_min = 3.0 / 4, ratio_max = 4.0 / 3;  // width / height
  int crop_padding = 0;
  double hflip = 0.5;                            // probability
  AutoAugment auto_augment;                      // colour images only, as the jitter
  double color_jitter = 0;                       // strength; 0: off
  double hue = 0;                                // the jitter's, of the circle; 0: off
  int repeats = 1;                               // times each image of an epoch's order is taken in a row (DeiT: 3)
  double erasing = 0;                            // probability
  int erasing_count = 1;                         // then 1 to so many boxes, drawn evenly, that share the area
  double erasing_area_min = 0.02, erasing_area_max = 1.0 / 3, erasing_ratio_min = 0.3;

  // Evaluation: the short side becomes floor(image_size / crop_pct), then the centre is cut out.
  double crop_pct = 0.875;

  // Batches of training.
  double mixup_alpha = 0, cutmix_alpha = 0;      // 0: off
  double mix_prob = 1;                           // share of batches that are mixed
  double switch_prob = 0.5;                      // cutmix rather than mixup, when both are on
  double label_smoothing = 0;

  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f}, std = {0.229f, 0.224f, 0.225f};  // of pixels / 255
};

// Refuses values without a meaning with Exit::config, in the words of the recipe.
void validate(const AugmentConfig&);

constexpr int max_erase_boxes = 8;
using EraseBoxes = std::array<EraseBox, max_erase_boxes>;   // those without height erase nothing

// How one image of [image_size, image_size] comes about: `source` is cut out, resized to `resized`; the window at
// (top, left) of that, with zeros where it sticks out, is the image; at last it is mirrored.
struct View {
  Box source;
  Size resized;
  int top = 0, left = 0;
  bool flip = false;
  Interpolation interpolation = Interpolation::bicubic;
  EraseBoxes erase;
  int shrink = 1;   // of what is decoded: 1, 2, 4, 8
};
View training_view(const AugmentConfig&, Size image, RandomSequence& draw);
View evaluation_view(const AugmentConfig&, Size image);

// The blend of one training batch.
Mix draw_mix(const AugmentConfig&, RandomSequence& draw);

// From an image's bytes to its pixels in the batch. One a thread.
class Renderer {
 public:
  explicit Renderer(const AugmentConfig&);
  // out: [image_size, image_size, channels]. An Error with Exit::bad_data says why an image is damaged. Draws the view,
  // then the operations.
  EraseBoxes training(std::span<const uint8_t> bytes, RandomSequence draw, uint8_t* out);
  void evaluation(std::span<const uint8_t> bytes, uint8_t* out);
  // Of the decoded region, the largest of its buffers, which is kept from image to image until it is released.
  int64_t held_bytes() const { return int64_t(region_.pixels.capacity()); }
  void release() { region_.pixels = std::vector<uint8_t>(); }

 private:
  RealBox decode(const View&);
  void render(const View&, uint8_t* out);
  AugmentConfig config_;
  Colour fill_;   // the mean: what operations leave uncovered
  Decoder decoder_;
  Resizer resize_;
  ImageEditor edit_;
  Image region_;
  std::vector<ImageOp> ops_;
};
