// verify.cpp: threads that take the images in small runs.
#include "data/verify.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <thread>

#include "data/decode.h"
#include "data/restart_index.h"

namespace {

constexpr int64_t images_per_claim = 32;

class Verifier {
 public:
  Verifier(const Dataset& dataset, const std::function<void(int64_t)>& progress)
      : dataset_(dataset), progress_(progress) {}

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
      std::move(found.damaged.begin(), found.damaged.end(), std::back_inserter(result_.damaged));
      if (progress_) progress_(result_.images);
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
    } catch (const Error& error) {
      if (error.exit == Exit::internal) throw;
      found.damaged.push_back({i, dataset_.name(i), error.what()});
    }
  }

  const Dataset& dataset_;
  const std::function<void(int64_t)>& progress_;
  std::mutex mutex_;
  int64_t next_ = 0;
  Verification result_;
  std::optional<std::string> death_;
};

}  // namespace

Verification verify(const Dataset& dataset, int threads, const std::function<void(int64_t done)>& progress) {
  check(threads >= 1, "[verify] threads must be at least 1, got ", threads);
  Verifier verifier(dataset, progress);
  {
    std::vector<std::jthread> helpers;
    for (int i = 1; i < threads; i++) helpers.emplace_back([&] { verifier.work(); });
    verifier.work();
  }
  return verifier.result();
}
