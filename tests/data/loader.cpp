// The loader: batches are a function of (seed, epoch, number) alone; damage costs one image; threads end.
#include "helpers.h"

#include "data/loader.h"

namespace {

AugmentConfig small_augment() {
  AugmentConfig augment;
  augment.image_size = 24;
  augment.channels = 1;
  augment.erasing = 0.5;
  augment.mixup_alpha = 0.8;
  augment.cutmix_alpha = 1;
  return augment;
}

// Everything in a batch that a training step can see.
std::string fingerprint(const Batch& b) {
  std::ostringstream out;
  out << b.count << ' ' << b.height << ' ' << b.width << ' ' << b.channels << ' ' << fnv(b.images) << ' ' << b.mix.kind
      << ' ' << b.mix.lambda << ' ' << b.mix.top << ' ' << b.mix.left << ' ' << b.mix.bottom << ' ' << b.mix.right;
  for (int i = 0; i < b.count; i++) {
    out << ' ' << b.labels[i] << ' ' << b.samples[i] << ' ' << int(b.valid[i]) << ' ' << b.erase[i].top << ' '
        << b.erase[i].left << ' ' << b.erase[i].height << ' ' << b.erase[i].width;
  }
  return out.str();
}

std::vector<std::string> epoch_of(Loader& loader, int epoch, int64_t first = 0) {
  std::vector<std::string> prints;
  Batch batch;
  loader.start(epoch, first);
  while (loader.next(batch)) prints.push_back(fingerprint(batch));
  return prints;
}

}  // namespace

TEST_CASE("permutation: a bijection, different each epoch, even over positions") {
  for (const uint64_t count : {1, 2, 3, 5, 16, 17, 100, 1000}) {
    std::set<uint64_t> seen;
    const Permutation order(1, 2, count);
    for (uint64_t i = 0; i < count; i++) {
      CHECK_UNARY(order[i] < count);
      seen.insert(order[i]);
    }
    CHECK(seen.size() == count);
  }
  // Where the first element lands over many epochs: chi-square with 9 degrees of freedom, 99.9 % below 27.9.
  std::vector<int> first(10), pairs(100);
  const int epochs = 20000;
  for (int epoch = 0; epoch < epochs; epoch++) {
    const Permutation order(5, uint32_t(epoch), 10);
    first[order[0]]++;
    pairs[order[3] * 10 + order[7]]++;
  }
  double chi = 0, chi_pairs = 0;
  for (const int n : first) chi += (n - epochs / 10.0) * (n - epochs / 10.0) / (epochs / 10.0);
  CHECK(chi < 27.9);
  for (int i = 0; i < 100; i++) {
    const double want = i / 10 == i % 10 ? 0 : epochs / 90.0;
    if (want > 0) chi_pairs += (pairs[i] - want) * (pairs[i] - want) / want;
    else CHECK(pairs[i] == 0);
  }
  CHECK(chi_pairs < 135.98);  // 89 degrees of freedom, 99.9 %
}

TEST_CASE("loader: the number of threads and the prefetch change nothing") {
  const MemoryDataset data = small_dataset(103);
  for (const bool training : {true, false}) {
    std::vector<std::string> reference;
    for (const int threads : {0, 1, 2, 5}) {
      for (const int prefetch : {1, 3}) {
        Loader loader(data, small_augment(),
                      {.batch_size = 10, .training = training, .seed = 9, .threads = threads, .prefetch = prefetch});
        std::vector<std::string> prints = epoch_of(loader, 0);
        const std::vector<std::string> second = epoch_of(loader, 1);
        CHECK(int64_t(prints.size()) == loader.batches());
        CHECK((prints == second) == !training);
        prints.insert(prints.end(), second.begin(), second.end());
        if (reference.empty()) reference = prints;
        CHECK(prints == reference);
      }
    }
    CHECK(reference.size() == (training ? 20 : 22));
  }
}

TEST_CASE("loader: the pixels of a sample do not depend on where in which batch it is") {
  const MemoryDataset data = small_dataset(60);
  std::map<int64_t, std::string> reference;
  for (const int size : {1, 7, 20}) {
    Loader loader(data, small_augment(), {.batch_size = size, .seed = 6});
    Batch batch;
    loader.start(2);
    while (loader.next(batch)) {
      for (int i = 0; i < batch.count; i++) {
        const EraseBox& erase = batch.erase[i];
        const std::string print = str(fnv(std::span(batch.images).subspan(size_t(i) * 24 * 24, 24 * 24)), ' ',
                                      erase.top, ' ', erase.left, ' ', erase.height, ' ', erase.width);
        CHECK(reference.try_emplace(batch.samples[i], print).first->second == print);
      }
    }
  }
  CHECK(reference.size() == 60);
}

TEST_CASE("loader: repeats take each image so often in a row, each time augmented anew, whatever the threads") {
  const MemoryDataset dataset = small_dataset(30);
  AugmentConfig augment = small_augment();
  augment.channels = 3;
  augment.repeats = 3;
  augment.auto_augment = parse_auto_augment("rand-m9-mstd0.5-inc1");
  Loader alone(dataset, augment, {.batch_size = 9, .seed = 4, .threads = 0}), three(dataset, augment, {.batch_size = 9, .seed = 4, .threads = 3});
  CHECK(epoch_of(alone, 2) == epoch_of(three, 2));
  CHECK(epoch_of(alone, 2, 1) == epoch_of(three, 2, 1));
  Batch batch;
  alone.start(0);
  std::set<int64_t> seen;
  while (alone.next(batch)) {
    const size_t size = batch.images.size() / 9;
    for (int i = 0; i < 9; i += 3) {
      CHECK(batch.samples[i] == batch.samples[i + 1]);
      CHECK(batch.samples[i] == batch.samples[i + 2]);
      CHECK(seen.insert(batch.samples[i]).second);
      const uint8_t* image = &batch.images[i * size];
      CHECK_UNARY(!std::equal(image, image + size, image + size));
    }
  }
  CHECK(seen.size() == 9);
}

TEST_CASE("loader: another seed is another run") {
  const MemoryDataset data = small_dataset(40);
  Loader a(data, small_augment(), {.batch_size = 10, .seed = 1}),
      b(data, small_augment(), {.batch_size = 10, .seed = 2});
  CHECK(epoch_of(a, 0) != epoch_of(b, 0));
}

TEST_CASE("loader: resumed at any batch it goes on as if never stopped") {
  const MemoryDataset data = small_dataset(95);
  Loader loader(data, small_augment(), {.batch_size = 10, .seed = 4});
  const std::vector<std::string> whole = epoch_of(loader, 3);
  for (const int64_t first : {1, 4, 8, 9}) {
    Loader fresh(data, small_augment(), {.batch_size = 10, .seed = 4, .threads = 1});
    CHECK(epoch_of(fresh, 3, first) == std::vector<std::string>(whole.begin() + first, whole.end()));
  }
  // And when an epoch is left half-way.
  Batch batch;
  loader.start(7);
  loader.next(batch);
  CHECK(epoch_of(loader, 3) == whole);
}

TEST_CASE("loader: training sees each image once an epoch, evaluation sees all in order") {
  const MemoryDataset data = small_dataset(50);
  Loader training(data, small_augment(), {.batch_size = 10});
  std::set<int64_t> seen;
  Batch batch;
  training.start(0);
  while (training.next(batch)) seen.insert(batch.samples.begin(), batch.samples.end());
  CHECK(seen.size() == 50);

  Loader evaluation(data, small_augment(), {.batch_size = 32, .training = false});
  evaluation.start(0);
  CHECK(evaluation.next(batch));
  CHECK(batch.mix.kind == Mix::none);
  CHECK(evaluation.next(batch));
  CHECK(batch.count == 18);
  CHECK(batch.images.size() == 18 * 24 * 24);
  CHECK(batch.samples.front() == 32);
  CHECK(batch.samples.back() == 49);
  CHECK(!evaluation.next(batch));
}

TEST_CASE("loader: a damaged image costs itself, is blank, and is named once") {
  MemoryDataset data = small_dataset(60);
  const std::set<int64_t> bad = {5, 23, 59};
  data.images[5].clear();
  data.images[23].resize(data.images[23].size() * 2 / 3);
  data.images[59] = Bytes(300, 'x');
  const MemoryDataset good = small_dataset(60);
  std::vector<DamagedImage> reference;
  for (const int threads : {0, 3}) {
    Loader loader(data, small_augment(), {.batch_size = 20, .threads = threads});
    Loader whole(good, small_augment(), {.batch_size = 20, .threads = 0});
    for (int epoch = 0; epoch < 2; epoch++) {
      Batch batch, expected;
      loader.start(epoch);
      whole.start(epoch);
      while (loader.next(batch)) {
        REQUIRE(whole.next(expected));
        for (int i = 0; i < batch.count; i++) {
          const bool damaged = bad.count(batch.samples[i]);
          CHECK(bool(batch.valid[i]) == !damaged);
          const auto begin = batch.images.begin() + i * 24 * 24, end = begin + 24 * 24;
          if (damaged) CHECK(std::count(begin, end, 0) == 24 * 24);
          else CHECK(std::equal(begin, end, expected.images.begin() + i * 24 * 24));
        }
      }
    }
    REQUIRE(loader.damaged().size() == 3);
    for (const DamagedImage& image : loader.damaged()) {
      CHECK(bad.count(image.sample));
      CHECK(image.name == str("memory[", image.sample, "]"));
      CHECK(!image.reason.empty());
    }
    if (reference.empty()) reference = loader.damaged();
    for (int i = 0; i < 3; i++) CHECK(loader.damaged()[i].sample == reference[i].sample);
  }
}

TEST_CASE("loader: when all images of a batch are damaged the run ends and says so") {
  const MemoryDataset data(std::vector<Bytes>(40));
  Loader loader(data, small_augment(), {.batch_size = 10});
  const Outcome result = outcome([&] { epoch_of(loader, 0); });
  CHECK(result.exit == Exit::bad_data);
  CHECK(result.says("all 10 images"));
}

TEST_CASE("loader: a dead worker ends the run with its reason, and every thread ends") {
  struct Deadly : MemoryDataset {
    using MemoryDataset::MemoryDataset;
    void read(int64_t i, Bytes& out) const override {
      if (i == 33) throw std::runtime_error("the lights went out");
      MemoryDataset::read(i, out);
    }
  };
  const Deadly data(small_dataset(60).images);
  for (const int threads : {0, 1, 4}) {
    Loader loader(data, small_augment(), {.batch_size = 10, .training = false, .threads = threads});
    Batch batch;
    loader.start(0);
    const Outcome result = outcome([&] { while (loader.next(batch)) {} });
    CHECK(result.exit == Exit::internal);
    CHECK(result.says("the lights went out"));
    CHECK(outcome([&] { loader.next(batch); }).says("the lights went out"));
  }
}

TEST_CASE("loader: leaving in the middle of an epoch is clean") {
  const MemoryDataset data = small_dataset(200);
  for (int round = 0; round < 20; round++) {
    Loader loader(data, small_augment(), {.batch_size = 10, .threads = 3});
    Batch batch;
    loader.start(round);
    for (int i = 0; i < round % 5; i++) loader.next(batch);
  }
}

TEST_CASE("loader: settings without a meaning are refused") {
  const MemoryDataset data = small_dataset(5);
  const auto made = [&](LoaderConfig config) { return outcome([&] { Loader(data, small_augment(), config); }); };
  CHECK(made({.batch_size = 0}).exit == Exit::config);
  CHECK(made({.batch_size = 6}).says("larger than the dataset"));
  CHECK(made({.batch_size = 6, .training = false}).exit == Exit::ok);
  CHECK(made({.batch_size = 2, .threads = -1}).exit == Exit::config);
}
