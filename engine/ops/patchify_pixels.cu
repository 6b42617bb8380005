// patchify_pixels: raw u8 pixels to normalised patch rows in one pass: (u8/255 - mean)/std, then random erasing, then mixup or cutmix
// with the batch reversed (DeiT's order), or the mix first (timm's), then the gather into patches. No gradient: pixels have none.
#include <cmath>
#include <cstring>

#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

constexpr int max_channels = 4;

constexpr size_t box_bytes = 4 * sizeof(int32_t);

// A plan as the device reads it; the erase boxes [B, boxes, 4] (top, left, height, width; no height: none) follow.
struct StagedPlan {
  float factor[max_channels], offset[max_channels];   // normalised = u8 * factor + offset
  int32_t mix, mix_first, fill, boxes;   // boxes: 0 where nothing is erased
  float lambda;
  int32_t cut[4];
  RandomStream noise;
  uint32_t step;
  int64_t first_sample;
};

// What an erased value becomes; its place is the pixel's or the box's.
HD float noise_of(const StagedPlan& plan, int64_t image, int64_t place) {
  const Words w = plan.noise.words(plan.step, uint64_t(plan.first_sample + image), uint32_t(place));
  return float(normal_from(w[0], w[1]));
}

template <class T> struct Pixels {
  const uint8_t* images;    // [B, H, W, C]
  const StagedPlan* plan;
  T* rows;
  int64_t batch, channels, height, width, patch, first;

  static HD bool inside(int64_t y, int64_t x, int64_t top, int64_t left, int64_t height, int64_t width) {
    return y >= top && y < top + height && x >= left && x < left + width;
  }
  HD float raw(int64_t b, int64_t y, int64_t x, int64_t c) const { return float(images[((b * height + y) * width + x) * channels + c]); }
  // Image b's pixel, whose raw value this is, normalised or erased.
  HD float finished(int64_t b, int64_t y, int64_t x, int64_t c, float pixel) const {
    const int32_t boxes = plan->boxes;
    for (int32_t i = boxes - 1; i >= 0; i--) {
      const int32_t* e = reinterpret_cast<const int32_t*>(plan + 1) + (b * boxes + i) * 4;
      if (!inside(y, x, e[0], e[1], e[2], e[3])) continue;
      if (plan->fill == PixelPlan::zero) return 0;
      return noise_of(*plan, b, (plan->fill == PixelPlan::per_box ? i : y * width + x) * channels + c);
    }
    return pixel * plan->factor[c] + plan->offset[c];
  }
  HD float value(int64_t b, int64_t y, int64_t x, int64_t c) const { return finished(b, y, x, c, raw(b, y, x, c)); }
  HD float mixed(int64_t b, int64_t y, int64_t x, int64_t c) const {
    const int64_t partner = batch - 1 - b;
    const int32_t mix = plan->mix, *cut = plan->cut;
    const float lambda = plan->lambda;
    const bool of_partner = mix == PixelPlan::cutmix && inside(y, x, cut[0], cut[1], cut[2], cut[3]);
    if (plan->mix_first) {
      // In f64 products and sum are exact, so that a fused sum rounds alike; timm's f32 may round a tie to the other side.
      const double share = lambda;
      const float pixel = mix == PixelPlan::mixup ? float(rint(share * raw(b, y, x, c) + (1 - share) * raw(partner, y, x, c)))
                                                  : raw(of_partner ? partner : b, y, x, c);
      return finished(b, y, x, c, pixel);
    }
    if (mix == PixelPlan::mixup) return lambda * value(b, y, x, c) + (1 - lambda) * value(partner, y, x, c);
    return value(of_partner ? partner : b, y, x, c);
  }
  template <class Team> HD void operator()(int64_t token, const Team& team) const {
    const int64_t across = width / patch, down = height / patch, columns = channels * patch * patch;
    const int64_t b = first + token / (across * down), top = token / across % down * patch, left = token % across * patch;
    const uint32_t side = uint32_t(patch);   // 32 bits divide in a fraction of the time
    team.write(rows + token * columns, columns, [&](int64_t j) {
      const uint32_t line = uint32_t(j) / side;   // c * patch + the line of the patch
      return Compute<T>(mixed(b, top + line % side, left + uint32_t(j) % side, line / side));
    });
  }
};

}  // namespace

std::vector<uint8_t> PixelPlan::staged(int64_t batch, int64_t channels) const {
  const PixelPlan& plan = *this;
  check(channels <= max_channels && int64_t(plan.mean.size()) == channels && int64_t(plan.std.size()) == channels,
        "[patchify_pixels] mean and std need one value for each of ", channels, " channels (at most ", max_channels, ")");
  check(plan.boxes >= 1 && (plan.erase.empty() || int64_t(plan.erase.size()) == batch * plan.boxes), "[patchify_pixels] ", plan.erase.size(),
        " erase boxes for ", batch, " images, ", plan.boxes, " each");
  StagedPlan to{};
  for (int64_t c = 0; c < channels; c++) {
    to.factor[c] = 1 / (255 * plan.std[c]);
    to.offset[c] = -plan.mean[c] / plan.std[c];
  }
  to.mix = plan.mix, to.mix_first = plan.mix_first, to.fill = plan.fill, to.boxes = plan.erase.empty() ? 0 : plan.boxes;
  to.lambda = plan.lambda;
  to.cut[0] = plan.cut.top, to.cut[1] = plan.cut.left, to.cut[2] = plan.cut.height, to.cut[3] = plan.cut.width;
  to.noise = plan.noise, to.step = plan.step, to.first_sample = plan.first_sample;
  std::vector<uint8_t> bytes(sizeof to + size_t(batch * plan.boxes) * box_bytes);   // boxes even where none is: one size for all steps
  std::memcpy(bytes.data(), &to, sizeof to);
  auto* boxes = reinterpret_cast<int32_t*>(bytes.data() + sizeof to);
  for (const Box& box : plan.erase)
    for (const int number : {box.top, box.left, box.height, box.width}) *boxes++ = number;
  return bytes;
}

Tensor patchify_pixels(const Tensor& images, const PixelPlan& plan, int patch, int64_t first, int64_t count, DType dtype) {
  check(images.shape().rank() == 4, "[patchify_pixels] u8 [B, H, W, C] expected, given ", images.shape());
  const std::vector<uint8_t> bytes = plan.staged(images.dim(0), images.dim(3));
  return patchify_pixels(images, Tensor::from(Shape{int64_t(bytes.size())}, bytes, DType::u8, images.device()), patch, first, count, dtype);
}

Tensor patchify_pixels(const Tensor& images, const Tensor& staged_plan, int patch, int64_t first, int64_t count, DType dtype) {
  const OpRange range("patchify_pixels");
  check(images.shape().rank() == 4 && images.dtype() == DType::u8, "[patchify_pixels] u8 [B, H, W, C] expected, given ", images.shape());
  const int64_t batch = images.dim(0), height = images.dim(1), width = images.dim(2), channels = images.dim(3);
  check(height % patch == 0 && width % patch == 0, "[patchify_pixels] ", height, " x ", width, " is not divisible by patches of ", patch);
  check(first >= 0 && first + count <= batch, "[patchify_pixels] images ", first, "+", count, " of ", batch);
  check(staged_plan.bytes() > sizeof(StagedPlan) && (staged_plan.bytes() - sizeof(StagedPlan)) % (size_t(batch) * box_bytes) == 0,
        "[patchify_pixels] the plan is of another batch");
  Tensor rows = Tensor::empty({count, height / patch * (width / patch), channels * patch * patch}, dtype, images.device());
  const auto* plan = reinterpret_cast<const StagedPlan*>(staged_plan.raw());
  count_kernel({2 * count * height * width * channels}, {rows});   // a mixed batch: each image and its partner
  dispatch(dtype, [&]<class T>() {
    // Not in registers: nothing reads the row again, and copies of this for every place of a pack spill around the noise.
    map_rows(images.device(), rows.rows(),
             Pixels<T>{images.data<uint8_t>(), plan, rows.data<T>(), batch, channels, height, width, patch, first});
  });
  return rows;
}
