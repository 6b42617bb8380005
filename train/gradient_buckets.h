// gradient_buckets.h: the gradients of all shards and ranks, summed in contiguous buckets while the backward still runs.
#pragma once
#include <mutex>
#include <vector>

#include "engine/comm.h"
#include "layers/parameter.h"

// Parameters lie in the order of the forward, so their gradients become final from the end of the flat buffer backwards. It is cut into buckets of whole
// parameters from its end; as soon as every shard has passed a bucket's first parameter, the shards' gradients of it are added by halves into
// the first one's buffer and its all-reduce starts, always in this order. With owners (ZeRO-1) it is a reduce-scatter: each parameter's sum arrives at
// its owner only.
class GradientBuckets {
 public:
  struct Bucket {
    int first, end;           // parameters
    int64_t from, to;         // in the flat buffers
  };
  // owners: of each parameter, or none.
  GradientBuckets(ParameterStore& store, Communicator& comm, std::vector<int> owners, int64_t largest_bytes = 16 << 20);

  void begin();            // a step begins
  void look(int shard);    // on the shard's thread, between two nodes of its last backward
  void finish();           // all shards have ended: starts what has not started yet, and waits for everything
  const std::vector<Bucket>& buckets() const { return buckets_; }   // in the order in which they start

 private:
  void start(size_t bucket);
  void add_shards(const Bucket& bucket);

  ParameterStore& store_;
  Communicator& comm_;
  const std::vector<int> owners_;
  std::vector<Bucket> buckets_;
  std::vector<std::vector<std::shared_ptr<GradSlot>>> slots_;   // [shard][parameter]
  std::vector<int> open_;       // [shard]: parameters from here on are final
  std::vector<size_t> passed_;  // [shard]: buckets that are final in it
  std::mutex mutex_;            // guards what follows
  std::vector<int> waiting_;    // [bucket]: shards in which it is not final yet
  size_t started_ = 0;
  int64_t last_ticket_ = -1;
};

// Neighbouring parameters of one owner as one part, counted from `from` on.
std::vector<Part> parts_of(const ParameterStore& store, const std::vector<int>& owners, int first, int end, int64_t from);
