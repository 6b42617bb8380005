// comm.h: processes (ranks) that compute together: sums, gathers and broadcasts over flat ranges of numbers.
#pragma once
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/tensor.h"

// The order of every sum over ranks, and over the shards inside one: by halves. sum(lo, hi) = sum(lo, mid) + sum(mid, hi) with
// mid = (lo + hi) / 2, element by element. So the bits depend on neither time nor transport, and where the number of ranks is a power of two,
// a sum over shards and then over ranks is that over all shards of a single process, bit for bit.
// parts[0] becomes the sum; the others are scratch.
template <class T> void add_halves(T* const* parts, int count, int64_t n) {
  if (count < 2) return;
  const int half = count / 2;
  add_halves(parts, half, n);
  add_halves(parts + half, count - half, n);
  T* sum = parts[0];
  const T* other = parts[half];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) sum[i] += other[i];
}

// Entries [begin, end) of a flat tensor, and the rank that they belong to.
struct Part {
  int64_t begin, end;
  int owner;
  int64_t size() const { return end - begin; }
};

// One collective as every rank calls it, in the same order everywhere.
//   all_reduce      x <- the sum over ranks of x
//   reduce_scatter  each part of x <- its sum, at its owner; what others hold of it is scratch afterwards
//   all_gather      each part of x <- what its owner holds of it, everywhere (a broadcast is one part)
//   barrier         nobody leaves before all have come; a patient one has no deadline, for when one does something long that others do not
struct Collective {
  enum Kind { all_reduce, reduce_scatter, all_gather, barrier } kind;
  Tensor x;                  // flat; f32 or f64 where it is summed, anything where it is moved
  std::vector<Part> parts;
  std::string what;          // "bucket 2": for messages and the flight recorder
  bool patient = false;
};
const char* name_of(Collective::Kind kind);

// What the flight recorder keeps of a collective. Seconds since the communicator was made; -1: not yet.
struct CollectiveRecord {
  int64_t number;
  std::string kind, what;
  size_t bytes;
  double queued, started, finished;
};

// A collective is started, runs beside what this thread does next, and is waited for. Tickets count from 0; they end in their order.
// One that does not end in the given time, or whose peers are gone, is an Error(Exit::unavailable) that names the rank, the collective and the
// ranks that are missing; it is thrown by wait(), and by everything after it.
class Communicator {
 public:
  Communicator(int rank, int size);
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;

  const int rank, size;
  virtual int64_t start(Collective collective) = 0;   // the ticket; x must live until it is waited for
  virtual void wait(int64_t ticket) = 0;              // until this one, and so all before it, have ended

  int64_t all_reduce(const Tensor& x, const std::string& what) { return start({Collective::all_reduce, x, {}, what}); }
  int64_t reduce_scatter(const Tensor& x, std::vector<Part> parts, const std::string& what);
  int64_t all_gather(const Tensor& x, std::vector<Part> parts, const std::string& what);
  int64_t broadcast(const Tensor& x, int root, const std::string& what) { return all_gather(x, {{0, x.size(), root}}, what); }
  int64_t barrier(const std::string& what, bool patient = false) { return start({Collective::barrier, {}, {}, what, patient}); }

  // The last collectives, oldest first: what was under way when something went wrong.
  std::vector<CollectiveRecord> recent() const;

 protected:
  int64_t note_queued(const Collective& collective);   // its ticket
  void note_started(int64_t ticket);
  void note_finished(int64_t ticket);
  std::string describe(int64_t ticket) const;          // "rank 1: collective 17 (all_reduce of bucket 2, 1.2 MB)"

 private:
  CollectiveRecord* record(int64_t ticket);
  double now() const;

  mutable std::mutex records_mutex_;
  std::deque<CollectiveRecord> records_;
  int64_t next_ticket_ = 0;
  const double born_;
};

// One process: every collective is over before it began.
std::unique_ptr<Communicator> solo_communicator();
// Several ranks in one process, one a thread of the caller's.
std::vector<std::unique_ptr<Communicator>> thread_communicators(int ranks, double timeout);
// Over TCP between all pairs; rank 0 listens at address:port until all have come. Error(Exit::unavailable) if they do not in `timeout` seconds.
std::unique_ptr<Communicator> tcp_communicator(int rank, int size, const std::string& address, int port, double timeout);
// Open MPI on host memory, where it was there when this was built. Once in a process: MPI starts and ends with it.
std::unique_ptr<Communicator> mpi_communicator(double timeout);
// For tensors on the device: NCCL on a stream of its own. `host` carries its id, and must outlive it. Null where `cuda` is fibers: its memory is the
// host's, so `host` itself does. Error(Exit::config) in a build that has CUDA but found no NCCL.
std::unique_ptr<Communicator> device_communicator(Communicator& host, Device device, double timeout);
