// comm_threads.cpp: ranks in one process: a mailbox for every pair.
#include "engine/comm_host.h"

#include <algorithm>
#include <cstring>

namespace {

struct Mailboxes {
  explicit Mailboxes(int ranks) : ranks(ranks), boxes(size_t(ranks) * ranks), gone(ranks) {}
  std::deque<std::vector<char>>& box(int from, int to) { return boxes[size_t(from) * ranks + to]; }

  const int ranks;
  std::mutex mutex;
  std::condition_variable news;
  std::vector<std::deque<std::vector<char>>> boxes;   // [from, to]
  std::vector<bool> gone;
};

class Threads : public Messenger {
 public:
  Threads(int rank, std::shared_ptr<Mailboxes> shared) : Messenger(rank, shared->ranks), shared_(std::move(shared)) {}
  ~Threads() override {
    const std::lock_guard lock(shared_->mutex);
    shared_->gone[rank] = true;
    shared_->news.notify_all();
  }

  void trade(const std::vector<Message>& out, const std::vector<Message>& in, Clock::time_point deadline) override {
    std::unique_lock lock(shared_->mutex);
    for (const Message& m : out) shared_->box(rank, m.peer).emplace_back(m.data, m.data + m.bytes);
    shared_->news.notify_all();
    for (const Message& m : in) {
      auto& box = shared_->box(m.peer, rank);
      while (box.empty()) {
        if (shared_->gone[m.peer] || stopping || Clock::now() > deadline) throw missing(in, &m - in.data());
        shared_->news.wait_until(lock, std::min(deadline, Clock::now() + std::chrono::milliseconds(50)));
      }
      check(box.front().size() == m.bytes, "[comm] a message of ", box.front().size(), " bytes, expected ", m.bytes);
      std::copy(box.front().begin(), box.front().end(), m.data);   // perhaps none
      box.pop_front();
    }
  }

 private:
  Missing missing(const std::vector<Message>& in, size_t first) {
    Missing found;
    for (size_t i = first; i < in.size(); i++) {
      const int peer = in[i].peer;
      if (!shared_->box(peer, rank).empty()) continue;
      std::vector<int>& list = shared_->gone[peer] ? found.gone : found.late;
      if (std::find(list.begin(), list.end(), peer) == list.end()) list.push_back(peer);
    }
    return found;
  }

  std::shared_ptr<Mailboxes> shared_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> thread_communicators(int ranks, double timeout) {
  auto shared = std::make_shared<Mailboxes>(ranks);
  std::vector<std::unique_ptr<Communicator>> all;
  for (int r = 0; r < ranks; r++)
    all.push_back(std::make_unique<HostCommunicator>(r, ranks, timeout, [=] { return std::make_unique<Threads>(r, shared); }));
  return all;
}
