// loader.h: batches in order, prepared ahead by worker threads.
//
// What a batch holds is a pure function of (seed, epoch, its number): neither the number of threads nor where a run
// was resumed changes a byte of it. A damaged image costs itself only: its pixels are 0, valid is 0, and damaged()
// names it. More than LoaderConfig::max_damaged of them end the run.
#pragma once
#include <atomic>
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
  double max_damaged = 0.01;   // images: from 1 on their number; below, a share of the dataset, but 10 at least; 0: none
  // Which of several processes this is, each with a loader of its own. Training: of the ranks * batch_size images of a step, in order, this
  // one takes the rank-th batch_size. Evaluation: images rank, rank + ranks, ...: each image lies in one share, none is added, and shares
  // differ by one image at most, so that sums of counts over the ranks are exact; their numbers of batches may differ, too.
  int rank = 0, ranks = 1;
};

// Bytes that the loader takes, at most, for image files of `file_bytes` and `pixels` each, whose longer side is at most four times the shorter:
//   batches  (prefetch + 1) * batch_size * (channels * image_size^2 + 112 + 16 * erasing_count); one of them is with the caller
//   decoding threads * (file_bytes + channels * pixels), threads being at least 1
//   inner    threads * (6 * pixels + resizer + 1 MiB): what libjpeg, our reader of baseline files and the resizer hold inside. 6 bytes a pixel are the
//            coefficients of a progressive file, and more than the planes of a baseline one (4.5 at most); the resizer has 16 rows of the picture and as many
//            of the result as the kernel spans, in f32; the rest is tables, pools and stacks
// Where larger images come along, decode.h and dataset.h limit the last two (6 bytes a pixel: 512 MiB); what one needed above kept_bytes is given back
// behind it.
struct LoaderMemory {
  int64_t batches = 0, decoding = 0, inner = 0;
  int64_t buffers() const { return batches + decoding; }   // what peak_bytes() counts
  int64_t total() const { return buffers() + inner; }
};
// How many images LoaderConfig::max_damaged lets pass.
int64_t damage_limit(double max_damaged, int64_t images);

LoaderMemory loader_memory(const AugmentConfig&, const LoaderConfig&, int64_t file_bytes, int64_t pixels);

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
  // What LoaderMemory::buffers() limits: the buffers as they are, and the most that they have ever been.
  int64_t held_bytes();
  int64_t peak_bytes();

 private:
  static constexpr int64_t kept_bytes = 32 << 20;   // by a worker, from image to image
  struct Worker {
    explicit Worker(const AugmentConfig& augment) : renderer(augment) {}
    Renderer renderer;
    Bytes bytes;
    std::atomic<int64_t> held{0}, peak{0};   // of the two
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

  int64_t share() const;
  int64_t batch_bytes() const;
  void arm(Slot&, int64_t number);
  Claim claim();
  void carry_out(const Claim&, Worker&, Lock&);
  void load_image(Slot&, int i, Worker&);
  void account_for(Worker&);
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
  int64_t handed_out_bytes_ = 0;      // the batch that is with the caller
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
