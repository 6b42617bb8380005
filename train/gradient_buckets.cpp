// gradient_buckets.cpp: when a bucket is final, and what happens to it then.
#include "train/gradient_buckets.h"

#include <algorithm>

namespace {

constexpr int least_buckets = 6;   // a small model has several too, so that the last one is short

int64_t end_of(const ParameterStore& store, int parameter) {
  const bool last = parameter + 1 == int(store.parameters().size());
  return last ? store.flat_size() : store.parameters()[parameter + 1].offset;
}

}  // namespace

std::vector<Part> parts_of(const ParameterStore& store, const std::vector<int>& owners, int first, int end, int64_t from) {
  std::vector<Part> parts;
  for (int p = first; p < end; p++) {
    const int64_t begin = store.parameters()[p].offset - from, behind = end_of(store, p) - from;
    if (!parts.empty() && parts.back().owner == owners[p]) parts.back().end = behind;
    else parts.push_back({begin, behind, owners[p]});
  }
  return parts;
}

GradientBuckets::GradientBuckets(ParameterStore& store, Communicator& comm, std::vector<int> owners, int64_t largest_bytes)
    : store_(store), comm_(comm), owners_(std::move(owners)) {
  const int64_t largest = std::min(largest_bytes / int64_t(size_of(store.dtype())), store.flat_size() / least_buckets);
  for (int end = int(store.parameters().size()); end > 0;) {
    int first = end - 1;
    while (first > 0 && end_of(store, end - 1) - store.parameters()[first - 1].offset <= largest) first--;
    buckets_.push_back({first, end, store.parameters()[first].offset, end_of(store, end - 1)});
    end = first;
  }
  for (int s = 0; s < store.shards(); s++) {
    const ShardScope scope(s);
    slots_.emplace_back();
    for (size_t p = 0; p < store.parameters().size(); p++) slots_[s].push_back(store.value(int(p)).slot());
  }
}

void GradientBuckets::begin() {
  open_.assign(store_.shards(), int(store_.parameters().size()));
  passed_.assign(store_.shards(), 0);
  waiting_.assign(buckets_.size(), store_.shards());
  started_ = 0;
  last_ticket_ = -1;
}

void GradientBuckets::look(int shard) {
  int& open = open_[shard];
  // Held by the store and by this object: nothing on the tape will write to it again.
  while (open > 0 && slots_[shard][open - 1].use_count() == 2) {
    GradSlot& slot = *slots_[shard][--open];
    if (!slot.filled) fill_bytes(slot.grad.raw(), slot.device, 0, slot.grad.bytes());
    slot.filled = true;
  }
  size_t& passed = passed_[shard];
  if (passed == buckets_.size() || open > buckets_[passed].first) return;
  const std::lock_guard lock(mutex_);
  for (; passed < buckets_.size() && open <= buckets_[passed].first; passed++) waiting_[passed]--;
  while (started_ < buckets_.size() && waiting_[started_] == 0) start(started_++);
}

void GradientBuckets::start(size_t number) {
  const Bucket& bucket = buckets_[number];
  add_shards(bucket);
  const Tensor sum = store_.gradient(0).slice(bucket.from, bucket.to - bucket.from);
  const std::string what = str("gradient bucket ", number);
  last_ticket_ = owners_.empty() ? comm_.all_reduce(sum, what)
                                 : comm_.reduce_scatter(sum, parts_of(store_, owners_, bucket.first, bucket.end, bucket.from), what);
}

void GradientBuckets::add_shards(const Bucket& bucket) {
  if (store_.shards() == 1) return;
  dispatch(store_.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      std::vector<T*> parts;
      for (int s = 0; s < store_.shards(); s++) parts.push_back(store_.gradient(s).data<T>() + bucket.from);
      add_halves(parts.data(), store_.shards(), bucket.to - bucket.from);
    }
  });
}

void GradientBuckets::finish() {
  const std::lock_guard lock(mutex_);
  while (started_ < buckets_.size()) start(started_++);
  if (last_ticket_ >= 0) comm_.wait(last_ticket_);
}
