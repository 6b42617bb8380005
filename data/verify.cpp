// verify.cpp: threads that take the images in small runs.
#include "data/verify.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <thread>

#include "data/decode.h"
#include "data/repack.h"
#include "data/restart_index.h"
#include "engine/random.h"

namespace {

constexpr int64_t images_per_claim = 32;

bool is_cut(const Image& part, const Image& whole, const Box& box) {
  const size_t row = size_t(box.width) * whole.channels;
  for (int y = 0; y < box.height; y++) {
    const uint8_t* expected = &whole.pixels[(size_t(box.top + y) * whole.width + box.left) * whole.channels];
    if (!std::equal(expected, expected + row, &part.pixels[size_t(y) * row])) return false;
  }
  return true;
}

class Verifier {
 public:
  Verifier(const Dataset& dataset, const VerifyOptions& options) : dataset_(dataset), options_(options) {}

  void work() {
    Decoder decoder;
    Bytes bytes;
    Image image;
    std::unique_lock lock(mutex_);
    while (next_ < dataset_.size() && !death_) {
      const int64_t begin = next_, end = std::min(dataset_.size(), begin + images_per_claim);
      next_ = end;
      lock.unlock();
      Verification found;
      std::optional<std::string> death;
      try {
        for (int64_t i = begin; i < end; i++) check_image(i, decoder, bytes, image, found);
      } catch (const std::exception& error) {
        death = error.what();
      }
      lock.lock();
      if (death) death_ = death;
      result_.images += end - begin;
      result_.irregular += found.irregular;
      result_.regions += found.regions;
      result_.different += found.different;
      std::move(found.damaged.begin(), found.damaged.end(), std::back_inserter(result_.damaged));
      if (options_.progress) options_.progress(result_.images);
    }
  }

  Verification result() {
    if (death_) fail(Exit::internal, "verifying failed: ", *death_);
    std::sort(result_.damaged.begin(), result_.damaged.end(), [](auto& a, auto& b) { return a.sample < b.sample; });
    return std::move(result_);
  }

 private:
  void check_image(int64_t i, Decoder& decoder, Bytes& bytes, Image& image, Verification& found) const {
    try {
      dataset_.read(i, bytes);
      const Size size = decoder.open(bytes);
      decoder.read({0, 0, size.height, size.width}, 3, image);
      RestartIndex index;
      const bool indexed = image_format(bytes) == ImageFormat::jpeg && read_restart_index(bytes, index);
      if (indexed && !picture_is_intact(bytes, index)) fail(Exit::bad_data, "JPEG: the checksum of its picture is wrong");
      if (decoder.warnings() > 0) found.irregular++;
      if (options_.regions > 0) compare_regions(i, decoder, bytes, image, found);
    } catch (const Error& error) {
      if (error.exit == Exit::internal) throw;
      found.damaged.push_back({i, dataset_.name(i), error.what()});
    }
  }

  void compare_regions(int64_t sample, Decoder& decoder, std::span<const uint8_t> bytes, const Image& whole, Verification& found) const {
    const bool jpeg = image_format(bytes) == ImageFormat::jpeg;
    const std::optional<Bytes> repacked = jpeg ? repack_jpeg(bytes, 0) : std::nullopt;
    RandomSequence draw(RandomStream(0, "verify regions"), 0, uint64_t(sample));
    Image part;
    for (int r = 0; r < options_.regions; r++) {
      Box box;
      box.height = 1 + int(draw.below(uint32_t(whole.height))), box.width = 1 + int(draw.below(uint32_t(whole.width)));
      box.top = int(draw.below(uint32_t(whole.height - box.height + 1))), box.left = int(draw.below(uint32_t(whole.width - box.width + 1)));
      for (const std::span<const uint8_t> file : {bytes, repacked ? std::span<const uint8_t>(*repacked) : std::span<const uint8_t>()}) {
        if (file.empty()) continue;
        decoder.open(file);
        decoder.read(box, whole.channels, part);
        found.regions++;
        found.different += !is_cut(part, whole, box);
      }
    }
  }

  const Dataset& dataset_;
  const VerifyOptions& options_;
  std::mutex mutex_;
  int64_t next_ = 0;
  Verification result_;
  std::optional<std::string> death_;
};

}  // namespace

Verification verify(const Dataset& dataset, const VerifyOptions& options) {
  check(options.threads >= 1, "[verify] threads must be at least 1, got ", options.threads);
  Verifier verifier(dataset, options);
  {
    std::vector<std::jthread> helpers;
    for (int i = 1; i < options.threads; i++) helpers.emplace_back([&] { verifier.work(); });
    verifier.work();
  }
  return verifier.result();
}
