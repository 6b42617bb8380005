// The loader among several processes, resumed deep in an epoch, in front of a slow or failing disk, and in memory stated in advance.
#include "helpers.h"

#include <chrono>
#include <new>

#include "data/loader.h"

namespace {

AugmentConfig tiny_augment(int channels = 1) {
  AugmentConfig augment;
  augment.image_size = 16;
  augment.channels = channels;
  return augment;
}

// As large as ImageNet, the same picture everywhere; it notes which were read.
class Vast : public MemoryDataset {
 public:
  explicit Vast(int64_t size) : MemoryDataset({small_jpeg(1)}), size_(size) {}
  int64_t size() const override { return size_; }
  void read(int64_t i, Bytes& out) const override {
    const std::lock_guard lock(mutex_);
    read_.insert(i);
    out = images[0];
  }
  int label(int64_t i) const override {
    const std::lock_guard lock(mutex_);
    labels_asked_++;
    return int(i % 4);
  }
  std::set<int64_t> reads() const {
    const std::lock_guard lock(mutex_);
    return read_;
  }
  int64_t labels_asked() const {
    const std::lock_guard lock(mutex_);
    return labels_asked_;
  }

 private:
  const int64_t size_;
  mutable std::mutex mutex_;
  mutable std::set<int64_t> read_;
  mutable int64_t labels_asked_ = 0;
};

std::vector<int64_t> samples_of(const MemoryDataset& data, const LoaderConfig& config, int epoch) {
  Loader loader(data, tiny_augment(), config);
  std::vector<int64_t> samples;
  Batch batch;
  loader.start(epoch);
  while (loader.next(batch)) samples.insert(samples.end(), batch.samples.begin(), batch.samples.end());
  return samples;
}

}  // namespace

TEST_CASE("loader: in evaluation the ranks share all images, none twice, as evenly as can be") {
  for (const int count : {1, 2, 50, 53}) {
    const MemoryDataset data = small_dataset(count);
    for (const int ranks : {1, 2, 3}) {
      std::vector<int64_t> all;
      for (int rank = 0; rank < ranks; rank++) {
        const std::vector<int64_t> own = samples_of(data, {.batch_size = 8, .training = false, .rank = rank, .ranks = ranks}, 0);
        CHECK(int64_t(own.size()) >= count / ranks);
        CHECK(int64_t(own.size()) <= (count + ranks - 1) / ranks);
        all.insert(all.end(), own.begin(), own.end());
      }
      std::sort(all.begin(), all.end());
      REQUIRE(int(all.size()) == count);
      for (int i = 0; i < count; i++) CHECK(all[size_t(i)] == i);
    }
  }
}

TEST_CASE("loader: in training the ranks of a step take together what one process would") {
  const MemoryDataset data = small_dataset(60);
  const std::vector<int64_t> whole = samples_of(data, {.batch_size = 12, .seed = 3}, 5);
  REQUIRE(whole.size() == 60);
  for (const int ranks : {2, 3}) {
    const int own = 12 / ranks;
    std::vector<std::vector<int64_t>> shares;
    for (int rank = 0; rank < ranks; rank++) shares.push_back(samples_of(data, {.batch_size = own, .seed = 3, .rank = rank, .ranks = ranks}, 5));
    std::vector<int64_t> together;
    for (int step = 0; step < 5; step++)
      for (const auto& share : shares) together.insert(together.end(), share.begin() + step * own, share.begin() + (step + 1) * own);
    CHECK(together == whole);
  }
  const auto made = [&](LoaderConfig config) { return outcome([&] { Loader(data, tiny_augment(), config); }); };
  CHECK(made({.batch_size = 31, .ranks = 2}).says("a batch of 62 is larger"));
  CHECK(made({.batch_size = 2, .rank = 2, .ranks = 2}).says("rank"));
}

TEST_CASE("loader: resuming at sample 1,000,000 of 1,281,167 touches none before it") {
  const Vast data(1'281'167);
  Batch batch;
  for (const int threads : {0, 2}) {
    Loader loader(data, tiny_augment(), {.batch_size = 10, .seed = 4, .threads = threads, .prefetch = 3});
    loader.start(7, 100'000);
    REQUIRE(loader.next(batch));
    const Permutation order(4, 7, 1'281'167);
    for (int i = 0; i < 10; i++) CHECK(batch.samples[size_t(i)] == int64_t(order[uint64_t(1'000'000 + i)]));
  }
  std::set<int64_t> allowed;
  const Permutation order(4, 7, 1'281'167);
  for (uint64_t i = 0; i < 40; i++) allowed.insert(int64_t(order[1'000'000 + i]));   // the batch, and as many as are prepared ahead
  for (const int64_t sample : data.reads()) CHECK(allowed.count(sample) == 1);
  CHECK(data.labels_asked() <= 80);
}

TEST_CASE("loader: its buffers stay within what was stated in advance") {
  // Each picture is a little larger than the one before: a buffer that grows by doubling would go beyond.
  std::vector<Bytes> images;
  for (int i = 0; i < 48; i++) images.push_back(small_jpeg(i, 40 + 2 * i, 60 + 2 * i));
  images.push_back(Bytes(40 << 20, 'x'));   // no picture at all, and too large to be kept
  int64_t file_bytes = 0;
  for (int i = 0; i < 48; i++) file_bytes = std::max(file_bytes, int64_t(images[size_t(i)].size()));
  const int64_t pixels = int64_t(40 + 2 * 47) * (60 + 2 * 47);
  const MemoryDataset all(images), ordinary(std::vector<Bytes>(images.begin(), images.end() - 1));
  for (const bool training : {true, false}) {
    for (const int threads : {0, 3}) {
      const LoaderConfig config{.batch_size = 6, .training = training, .threads = threads, .prefetch = 2};
      const LoaderMemory stated = loader_memory(tiny_augment(3), config, file_bytes, pixels);
      Loader loader(ordinary, tiny_augment(3), config);
      for (int epoch = 0; epoch < 2; epoch++) {
        Batch batch;
        loader.start(epoch);
        while (loader.next(batch)) {}
      }
      CHECK(loader.peak_bytes() <= stated.buffers());
      // Statements far above the truth would be of no use.
      CHECK(loader.peak_bytes() >= stated.batches / 2 + (training ? 0 : pixels));
      CHECK(loader.held_bytes() <= loader.peak_bytes());

      Loader larger(all, tiny_augment(3), {.batch_size = 7, .training = training, .threads = threads, .prefetch = 2});
      Batch batch;
      larger.start(0);
      while (larger.next(batch)) {}
      CHECK(larger.peak_bytes() >= 40 << 20);
      CHECK(larger.held_bytes() <= 32 << 20);
    }
  }
}

TEST_CASE("loader: a stalled disk is time waited for, and then the run goes on") {
  struct Slow : MemoryDataset {
    using MemoryDataset::MemoryDataset;
    void read(int64_t i, Bytes& out) const override {
      if (i == 10) std::this_thread::sleep_for(std::chrono::milliseconds(150));
      MemoryDataset::read(i, out);
    }
  };
  const Slow data(small_dataset(30).images);
  for (const int threads : {0, 2}) {
    // With one batch under way, the stall of the second cannot have begun before the first was fetched.
    Loader loader(data, tiny_augment(), {.batch_size = 10, .training = false, .threads = threads, .prefetch = 1});
    Batch batch;
    loader.start(0);
    REQUIRE(loader.next(batch));
    REQUIRE(loader.next(batch));
    CHECK(batch.wait_seconds >= 0.1);   // what was slept, less what passed between the two calls
    CHECK(std::count(batch.valid.begin(), batch.valid.end(), 1) == 10);
    REQUIRE(loader.next(batch));
    CHECK(!loader.next(batch));
  }
}

TEST_CASE("loader: whatever kills a worker ends the run with its reason") {
  struct Deadly : MemoryDataset {
    using MemoryDataset::MemoryDataset;
    void read(int64_t i, Bytes& out) const override {
      if (i == 25 && kind == 0) throw std::bad_alloc();
      if (i == 25 && kind == 1) throw 3;
      if (i == 25 && kind == 2) fail(Exit::internal, "the index is wrong");
      MemoryDataset::read(i, out);
    }
    int kind = 0;
  };
  const std::vector<std::string> reasons = {"out of memory", "an unknown exception", "the index is wrong"};
  for (int kind = 0; kind < 3; kind++) {
    Deadly data(small_dataset(40).images);
    data.kind = kind;
    for (const int threads : {0, 2}) {
      Loader loader(data, tiny_augment(), {.batch_size = 10, .training = false, .threads = threads});
      Batch batch;
      loader.start(0);
      const Outcome result = outcome([&] { while (loader.next(batch)) {} });
      CHECK(result.exit == Exit::internal);
      CHECK(result.says(reasons[size_t(kind)]));
    }
  }
}

TEST_CASE("loader: more damaged images than may be end the run with the names of the first, whatever the number of threads") {
  CHECK(damage_limit(0, 1000) == 0);
  CHECK(damage_limit(0.01, 100) == 10);
  CHECK(damage_limit(0.01, 1'281'167) == 12'811);
  CHECK(damage_limit(1, 1000) == 1);
  CHECK(damage_limit(2.5, 1000) == 2);
  CHECK(damage_limit(1e300, 1000) == 1000);

  MemoryDataset data = small_dataset(60);
  std::set<int64_t> bad;
  for (int i = 0; i < 60; i += 5) bad.insert(i), data.images[size_t(i)] = text("no picture");
  // Batches that come before the end, and its reason.
  const auto run = [&](double max_damaged, int threads, int epochs, std::string& why) {
    Loader loader(data, tiny_augment(), {.batch_size = 10, .seed = 5, .threads = threads, .max_damaged = max_damaged});
    int batches = 0;
    const Outcome o = outcome([&] {
      Batch batch;
      for (int epoch = 0; epoch < epochs; epoch++) {
        loader.start(epoch);
        while (loader.next(batch)) batches++;
      }
    });
    why = o.what;
    CHECK(o.exit == (why.empty() ? Exit::ok : Exit::bad_data));
    return batches;
  };
  for (const double allowed : {0.0, 5.0, 11.0, 0.01, 0.5, 12.0}) {
    std::string why, same;
    const int limit = int(damage_limit(allowed, 60)), batches = run(allowed, 2, 3, why);
    CHECK(run(allowed, 0, 3, same) == batches);
    CHECK(why == same);
    CHECK(why.empty() == (limit >= 12));
    if (limit >= 12) {
      CHECK(batches == 18);   // each of the twelve was met three times and counts once
      continue;
    }
    // The batch in which it became too many, and the first of them in the order of the epoch.
    const Permutation order(5, 0, 60);
    int met = 0, expected = 0;
    std::string first;
    for (int place = 0; place < 60; place++) {
      if (!bad.count(int64_t(order[uint64_t(place)]))) continue;
      if (met == 0) first = data.name(int64_t(order[uint64_t(place)]));
      if (++met == limit + 1) expected = place / 10;
    }
    CHECK(batches == expected);
    const std::string said = str(" of 60 images are damaged, data.max_damaged allows ", limit, ": ", first, " (the content is neither JPEG nor PNG), ");
    CHECK(why.find(said) != std::string::npos);
  }
}
