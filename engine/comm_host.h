// comm_host.h: collectives on host memory, made of messages: the same algorithm, and so the same bits, over threads, MPI and TCP.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <thread>

#include "engine/comm.h"

struct Message {
  int peer;
  char* data;
  size_t bytes;
};

// Ranks that a trade waited for in vain.
struct Missing {
  std::vector<int> late, gone;   // not come in time; known to have ended
};

// How messages get from rank to rank. Used by one thread.
class Messenger {
 public:
  Messenger(int rank, int size) : rank(rank), size(size) {}
  virtual ~Messenger() = default;
  using Clock = std::chrono::steady_clock;
  // Hands over all of `out` and waits for all of `in`. Between two ranks messages keep their order. Throws Missing at the deadline, at once where a
  // peer is known to be gone, and soon after `stopping` was set.
  virtual void trade(const std::vector<Message>& out, const std::vector<Message>& in, Clock::time_point deadline) = 0;
  virtual void close() {}   // all ranks have come to the end together

  const int rank, size;
  std::atomic<bool> stopping{false};
};

// A thread of its own carries out the collectives one after the other. First every rank tells every other which one it has come to, so that
// a time-out knows who is missing and ranks that disagree are found. A sum is then taken at one owner for each part, all of whose terms are sent
// there: 2 (n - 1) / n of the bytes in all, as in a ring.
class HostCommunicator : public Communicator {
 public:
  // `connect` runs on that thread, as MPI wants it.
  HostCommunicator(int rank, int size, double timeout, std::function<std::unique_ptr<Messenger>()> connect);
  ~HostCommunicator() override;
  int64_t start(Collective collective) override;
  void wait(int64_t ticket) override;

 private:
  void serve(const std::function<std::unique_ptr<Messenger>()>& connect);
  void carry_out(int64_t ticket, const Collective& collective);
  void meet(int64_t ticket, const Collective& collective);
  void trade(const std::vector<Message>& out, const std::vector<Message>& in) { messenger_->trade(out, in, deadline_); }
  template <class T> void reduce(const Tensor& x, const std::vector<Part>& parts);
  void gather(const Tensor& x, const std::vector<Part>& parts);

  const double timeout_;
  std::mutex mutex_;
  std::condition_variable work_, ended_;
  std::deque<std::pair<int64_t, Collective>> queue_;
  int64_t done_ = 0;          // tickets below it have ended
  bool connected_ = false, closing_ = false;
  std::exception_ptr error_;
  Messenger::Clock::time_point deadline_;
  std::unique_ptr<Messenger> messenger_;
  std::vector<char> scratch_;
  std::thread thread_;
};
