// loader.h: batches in order, prepared ahead by worker threads.
//
// What a batch holds is a pure function of (seed, epoch, its number): neither the number of threads nor where a run
// was resumed changes a byte of it. A damaged image costs itself only: its pixels are 0, valid is 0, and damaged()
// names it.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "data/augment.h"
#include "data/batch_source.h"
#include "data/permutation.h"

struct LoaderConfig {
  int batch_size = 64;
  bool training = true;  // shuffled, augmented, mixed, without the incomplete last batch; or else in order, complete
  uint64_t seed = 0;
  int threads = 2;       // 0: the images are decoded in next()
  int prefetch = 3;      // batches under way or ready
};

class Loader : public BatchSource {
 public:
  Loader(const Dataset&, const AugmentConfig&, const LoaderConfig&);
  Loader(const Dataset&&, const AugmentConfig&, const LoaderConfig&) = delete;  // the dataset must outlive the loader
  ~Loader() override;
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  int64_t batches() const override { return batches_; }
  void start(int epoch, int64_t first_batch = 0) override;
  // What killed a worker is thrown here.
  bool next(Batch& batch) override;
  const std::vector<DamagedImage>& damaged() const override { return damaged_; }

 private:
  struct Worker {
    explicit Worker(const AugmentConfig& augment) : renderer(augment) {}
    Renderer renderer;
    Bytes bytes;
  };
  // A batch being filled.
  struct Slot {
    Batch batch;
    std::vector<int> copies;          // [count] which of its repeats image i is
    std::vector<std::string> damage;  // [count] why image i is not valid
    int finished = 0;                 // images
  };
  // Images [begin, end) of a batch, claimed in order by whoever is free.
  struct Claim {
    Slot* slot = nullptr;
    int begin = 0, end = 0;
  };
  struct Death {
    Exit exit;
    std::string reason;
  };
  using Lock = std::unique_lock<std::mutex>;

  void arm(Slot&, int64_t number);
  Claim claim();
  void carry_out(const Claim&, Worker&, Lock&);
  void load_image(Slot&, int i, Worker&);
  void work(Worker&);
  void record_damage(const Slot&);
  void shut_down();

  const Dataset& dataset_;
  const AugmentConfig augment_;
  const LoaderConfig config_;
  int64_t batches_ = 0;

  std::mutex mutex_;  // guards all that follows, except the pixels of claimed images
  std::condition_variable work_ready_, progress_;
  int epoch_ = 0;                     // changes only while no claim is under way
  std::optional<Permutation> order_;
  std::vector<Slot> slots_;           // batch b lives in slot b % prefetch
  int64_t next_out_ = 0;              // the batch that next() hands out next
  int64_t next_claim_ = 0;            // the batch, and the image in it, that is claimed next
  int next_image_ = 0;
  int busy_ = 0;                      // claims under way
  bool stopping_ = false;
  std::optional<Death> death_;        // why a worker died

  std::vector<DamagedImage> damaged_;
  std::set<int64_t> known_damaged_;
  std::deque<Worker> workers_;        // one a thread; one for next() itself when there are none
  std::vector<std::thread> threads_;
};
