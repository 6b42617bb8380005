// loader.cpp: a ring of batches; workers claim a few images at a time from the oldest batch that still has some.
#include "data/loader.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>
#include <system_error>

namespace {

// Images a worker takes at once: few enough to share the last batch fairly, many enough that the lock costs nothing.
constexpr int images_per_claim = 8;
// When every image of a batch of at least this many is damaged, it is not the images: the disk is gone, or the folder
// is wrong.
constexpr int hopeless_batch = 8;
constexpr int64_t always_forgiven = 10;   // damaged images, where a share of them is
constexpr size_t named_when_too_many = 3;

constexpr int64_t small_bytes_per_image = 112;   // of a batch, besides its pixels and erase boxes

int64_t bytes_of(const Batch& batch) {
  constexpr size_t small = sizeof(int) + sizeof(int64_t) + sizeof(char) + sizeof(int) + sizeof(std::string);
  static_assert(small <= small_bytes_per_image);   // label, sample, valid, and the slot's copy and damage
  return int64_t(batch.images.capacity() + batch.erase.capacity() * sizeof(EraseBox) + batch.samples.size() * small);
}

bool costs_one_image(const Error& error) {
  return error.exit == Exit::bad_data || error.exit == Exit::no_input || error.exit == Exit::io;
}

}  // namespace

Loader::Loader(const Dataset& dataset, const AugmentConfig& augment, const LoaderConfig& config)
    : dataset_(dataset), augment_(augment), config_(config), slots_(std::max(1, config.prefetch)) {
  validate(augment);
  if (config.batch_size < 1) fail(Exit::config, "the batch size must be at least 1, got ", config.batch_size);
  if (config.threads < 0 || config.threads > 1024)
    fail(Exit::config, "data threads must lie in 0 .. 1024, got ", config.threads);
  if (!(config.max_damaged >= 0)) fail(Exit::config, "data.max_damaged must not be negative, got ", config.max_damaged);
  check(config.ranks >= 1 && config.rank >= 0 && config.rank < config.ranks, "[loader] the rank must lie in 0 .. ", config.ranks - 1, ", got ",
        config.rank);
  const int64_t size = dataset.size(), batch = config.batch_size, step = batch * config.ranks;
  batches_ = config.training ? size / step : (share() + batch - 1) / batch;
  if (size == 0 || (config.training && batches_ == 0)) fail(Exit::config, "a batch of ", step, " is larger than the dataset of ", size, " images");
  next_claim_ = next_out_ = batches_;  // nothing to do before start()
  for (int i = 0; i < std::max(1, config.threads); i++) workers_.emplace_back(augment);
  try {
    for (int i = 0; i < config.threads; i++) threads_.emplace_back(&Loader::work, this, std::ref(workers_[i]));
  } catch (const std::system_error& error) {
    shut_down();
    fail(Exit::internal, "cannot start ", config.threads, " data threads: ", error.what());
  }
}

Loader::~Loader() { shut_down(); }

void Loader::shut_down() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Loader::start(int epoch, int64_t first_batch) {
  check(epoch >= 0 && first_batch >= 0 && first_batch <= batches_, "[loader] the first batch must lie in 0 .. ",
        batches_, ", got ", first_batch, " of epoch ", epoch);
  Lock lock(mutex_);
  next_claim_ = batches_;
  progress_.wait(lock, [&] { return busy_ == 0; });
  epoch_ = epoch;
  order_.emplace(config_.seed, uint32_t(epoch), uint64_t(dataset_.size()));
  const int64_t ahead = std::min(batches_, first_batch + int64_t(slots_.size()));
  for (int64_t b = first_batch; b < ahead; b++) arm(slots_[b % slots_.size()], b);
  next_out_ = next_claim_ = first_batch;
  next_image_ = 0;
  work_ready_.notify_all();
}

// Images of an epoch that are this rank's.
int64_t Loader::share() const {
  const int64_t ranks = config_.ranks, size = dataset_.size();
  return config_.training ? batches_ * config_.batch_size : (size - config_.rank + ranks - 1) / ranks;
}

// Gives a slot the size, the samples and the mix of a batch. The pixels follow.
void Loader::arm(Slot& slot, int64_t number) {
  Batch& batch = slot.batch;
  const int64_t first = number * config_.batch_size;
  const int side = augment_.image_size;
  batch.count = int(std::min<int64_t>(config_.batch_size, share() - first));
  batch.height = batch.width = side;
  batch.channels = augment_.channels;
  resize_exactly(batch.images, size_t(batch.count) * side * side * batch.channels);
  batch.samples.resize(batch.count);
  batch.labels.resize(batch.count);
  batch.erase.assign(size_t(batch.count) * size_t(augment_.erasing_count), {});
  batch.valid.assign(batch.count, 0);
  batch.mix = {};
  slot.copies.assign(batch.count, 0);
  slot.damage.assign(batch.count, "");
  slot.finished = 0;
  for (int i = 0; i < batch.count; i++) {
    const int64_t ranks = config_.ranks, rank = config_.rank;
    const int64_t place = config_.training ? (number * ranks + rank) * config_.batch_size + i : (first + i) * ranks + rank;
    batch.samples[i] = config_.training ? int64_t((*order_)[uint64_t(place / augment_.repeats)]) : place;
    slot.copies[i] = config_.training ? int(place % augment_.repeats) : 0;
    batch.labels[i] = dataset_.label(batch.samples[i]);
  }
  if (!config_.training) return;
  RandomSequence draw(RandomStream(config_.seed, "mix"), uint32_t(epoch_), uint64_t(number));
  batch.mix = draw_mix(augment_, draw);
}

// The mutex is held. Nothing when all batches that may be prepared are taken.
Loader::Claim Loader::claim() {
  const int64_t armed = std::min(batches_, next_out_ + int64_t(slots_.size()));
  if (next_claim_ >= armed) return {};
  Slot& slot = slots_[next_claim_ % slots_.size()];
  const int begin = next_image_, end = std::min(slot.batch.count, begin + images_per_claim);
  next_image_ = end;
  if (end == slot.batch.count) {
    next_claim_++;
    next_image_ = 0;
  }
  busy_++;
  return {&slot, begin, end};
}

void Loader::load_image(Slot& slot, int i, Worker& worker) {
  Batch& batch = slot.batch;
  const int64_t sample = batch.samples[i];
  const size_t size = size_t(batch.height) * batch.width * batch.channels;
  uint8_t* out = &batch.images[i * size];
  try {
    dataset_.read(sample, worker.bytes);
    if (config_.training) {
      const uint64_t copy = uint64_t(slot.copies[i]) << 48;   // each repeat draws for itself
      const RandomSequence draw(RandomStream(config_.seed, "augment"), uint32_t(epoch_), uint64_t(sample) | copy);
      const EraseBoxes boxes = worker.renderer.training(worker.bytes, draw, out);
      std::copy_n(boxes.begin(), augment_.erasing_count, batch.erase.begin() + i * augment_.erasing_count);
    } else {
      worker.renderer.evaluation(worker.bytes, out);
    }
    batch.valid[i] = 1;
  } catch (const Error& error) {
    if (!costs_one_image(error)) throw;
    std::fill_n(out, size, 0);
    slot.damage[i] = error.what();
  }
  account_for(worker);
}

void Loader::account_for(Worker& worker) {
  const auto held = [&] { return int64_t(worker.bytes.capacity()) + worker.renderer.held_bytes(); };
  worker.peak = std::max<int64_t>(worker.peak, held());
  if (held() > kept_bytes) {
    worker.bytes = Bytes();
    worker.renderer.release();
  }
  worker.held = held();
}

int64_t Loader::batch_bytes() const {
  int64_t bytes = handed_out_bytes_;
  for (const Slot& slot : slots_) bytes += bytes_of(slot.batch);
  return bytes;
}

int64_t Loader::held_bytes() {
  const Lock lock(mutex_);
  int64_t bytes = batch_bytes();
  for (const Worker& worker : workers_) bytes += worker.held;
  return bytes;
}

// Batches are held from the first start() on, all of them.
int64_t Loader::peak_bytes() {
  const Lock lock(mutex_);
  int64_t bytes = batch_bytes();
  for (const Worker& worker : workers_) bytes += worker.peak;
  return bytes;
}

int64_t damage_limit(double max_damaged, int64_t images) {
  if (max_damaged >= 1) return int64_t(std::min(max_damaged, double(images)));
  return max_damaged > 0 ? std::max(always_forgiven, int64_t(max_damaged * double(images))) : 0;
}

LoaderMemory loader_memory(const AugmentConfig& augment, const LoaderConfig& config, int64_t file_bytes, int64_t pixels) {
  const int64_t side = augment.image_size, image = augment.channels * side * side + small_bytes_per_image + int64_t(sizeof(EraseBox)) * augment.erasing_count;
  const int64_t batches = std::max(1, config.prefetch) + 1, workers = std::max(1, config.threads);
  const auto longest = int64_t(2 * std::sqrt(double(pixels)));   // side of a picture that is four times as long as high
  const int64_t taps = 4 * longest / side + 5;                   // of a cubic kernel that is stretched to this scale
  const int64_t resizer = augment.channels * (2 * (longest + taps + 16) + (taps + 4) * (side + 32)) + 8 * side * taps;   // rows, weights
  return {batches * config.batch_size * image, workers * (file_bytes + augment.channels * pixels), workers * (6 * pixels + resizer + (1 << 20))};
}

// The mutex is held before and after, not during. Whatever an image cannot be blamed for is a death.
void Loader::carry_out(const Claim& claimed, Worker& worker, Lock& lock) {
  lock.unlock();
  std::optional<Death> death;
  try {
    for (int i = claimed.begin; i < claimed.end; i++) load_image(*claimed.slot, i, worker);
  } catch (const Error& error) {
    death = {error.exit, error.what()};
  } catch (const std::bad_alloc&) {
    death = {Exit::internal, "out of memory: fewer data.workers or a smaller data.batch_size need less"};
  } catch (const std::exception& error) {
    death = {Exit::internal, error.what()};
  } catch (...) {
    death = {Exit::internal, "an unknown exception"};
  }
  lock.lock();
  busy_--;
  claimed.slot->finished += claimed.end - claimed.begin;
  if (death && !death_) death_ = death;
  progress_.notify_all();
}

void Loader::work(Worker& worker) {
  Lock lock(mutex_);
  while (true) {
    Claim claimed;
    work_ready_.wait(lock, [&] { return stopping_ || death_ || (claimed = claim()).slot; });
    if (!claimed.slot) return;
    carry_out(claimed, worker, lock);
  }
}

bool Loader::next(Batch& out) {
  const auto began = std::chrono::steady_clock::now();
  Lock lock(mutex_);
  if (next_out_ >= batches_) return false;
  const int64_t number = next_out_;
  Slot& slot = slots_[number % slots_.size()];
  const auto ready = [&] { return death_ || slot.finished == slot.batch.count; };
  while (threads_.empty() && !ready()) carry_out(claim(), workers_.front(), lock);
  progress_.wait(lock, ready);
  if (death_) throw Error(death_->exit, "loading data failed: " + death_->reason);
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - began;

  record_damage(slot);
  std::swap(out, slot.batch);
  handed_out_bytes_ = bytes_of(out);
  out.wait_seconds = waited.count();
  next_out_++;
  const int64_t ahead = number + int64_t(slots_.size());
  if (ahead < batches_) {
    arm(slot, ahead);
    work_ready_.notify_all();
  }
  return true;
}

void Loader::record_damage(const Slot& slot) {
  const Batch& batch = slot.batch;
  int damaged = 0;
  for (int i = 0; i < batch.count; i++) {
    if (batch.valid[i]) continue;
    damaged++;
    if (!known_damaged_.insert(batch.samples[i]).second) continue;
    damaged_.push_back({batch.samples[i], dataset_.name(batch.samples[i]), slot.damage[i]});
  }
  if (damaged == batch.count && damaged >= hopeless_batch) {
    fail(Exit::bad_data, "all ", damaged, " images of a batch are damaged, the first is ",
         dataset_.name(batch.samples[0]), ": ", slot.damage[0]);
  }
  const int64_t limit = damage_limit(config_.max_damaged, dataset_.size());
  if (int64_t(damaged_.size()) <= limit) return;
  std::string first;
  for (size_t i = 0; i < std::min(named_when_too_many, damaged_.size()); i++) first += str(i > 0 ? ", " : "", damaged_[i].name, " (", damaged_[i].reason, ")");
  fail(Exit::bad_data, damaged_.size(), " of ", dataset_.size(), " images are damaged, data.max_damaged allows ", limit, ": ", first,
       "; lipsgrad data verify names them all");
}
