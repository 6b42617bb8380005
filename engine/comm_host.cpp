// comm_host.cpp: the queue of collectives, and how each is made of messages.
#include "engine/comm_host.h"

#include <algorithm>
#include <cstring>

namespace {

std::string listed(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); i++) text += str(i ? ", " : "", ranks[i]);
  return text;
}

std::string reason(const Missing& missing, double timeout) {
  if (!missing.gone.empty()) return str(" cannot end: ", listed(missing.gone), missing.gone.size() == 1 ? " is gone" : " are gone");
  return str(" did not end in ", timeout, " s (run.comm_timeout): ", listed(missing.late), missing.late.size() == 1 ? " has" : " have", " not arrived");
}

// An even share for each rank.
std::vector<Part> even_parts(int64_t n, int ranks) {
  std::vector<Part> parts;
  for (int r = 0; r < ranks; r++) parts.push_back({n * r / ranks, n * (r + 1) / ranks, r});
  return parts;
}

char* at(const Tensor& x, int64_t i) { return x.raw() + size_t(i) * size_of(x.dtype()); }

}  // namespace

HostCommunicator::HostCommunicator(int rank, int size, double timeout, std::function<std::unique_ptr<Messenger>()> connect)
    : Communicator(rank, size), timeout_(timeout) {
  thread_ = std::thread([this, connect = std::move(connect)] { serve(connect); });
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return connected_ || error_; });
  if (!error_) return;
  lock.unlock();
  thread_.join();
  std::rethrow_exception(error_);
}

// An orderly end has been agreed upon: the queue is empty and nothing failed. In any other case nobody is waited for.
HostCommunicator::~HostCommunicator() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    if (messenger_ && (std::uncaught_exceptions() > 0 || !queue_.empty())) messenger_->stopping = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

int64_t HostCommunicator::start(Collective collective) {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
  const int64_t ticket = note_queued(collective);
  queue_.emplace_back(ticket, std::move(collective));
  work_.notify_all();
  return ticket;
}

void HostCommunicator::wait(int64_t ticket) {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return done_ > ticket || error_; });
  if (done_ <= ticket) std::rethrow_exception(error_);
}

void HostCommunicator::serve(const std::function<std::unique_ptr<Messenger>()>& connect) {
  std::unique_lock lock(mutex_);
  try {
    lock.unlock();
    std::unique_ptr<Messenger> messenger = connect();
    lock.lock();
    messenger_ = std::move(messenger);
    connected_ = true;
    ended_.notify_all();
    while (true) {
      work_.wait(lock, [&] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) break;
      const auto [ticket, collective] = queue_.front();
      lock.unlock();
      carry_out(ticket, collective);
      lock.lock();
      queue_.pop_front();
      done_ = ticket + 1;
      ended_.notify_all();
    }
    lock.unlock();
    if (!messenger_->stopping) messenger_->close();
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    error_ = std::current_exception();
    if (messenger_) messenger_->stopping = true;
    ended_.notify_all();
    lock.unlock();
  }
  lock.lock();
  const std::unique_ptr<Messenger> gone = std::move(messenger_);   // its end shows peers that this rank is gone
  lock.unlock();
}

void HostCommunicator::carry_out(int64_t ticket, const Collective& c) {
  note_started(ticket);
  constexpr double years = 1e9;
  deadline_ = Messenger::Clock::now() +
              std::chrono::duration_cast<Messenger::Clock::duration>(std::chrono::duration<double>(c.patient ? years : timeout_));
  try {
    meet(ticket, c);
    const std::vector<Part> parts = c.kind == Collective::all_reduce ? even_parts(c.x.size(), size) : c.parts;
    if (c.kind == Collective::all_reduce || c.kind == Collective::reduce_scatter) {
      if (c.x.dtype() == DType::f64) reduce<double>(c.x, parts);
      else reduce<float>(c.x, parts);
    }
    if (c.kind == Collective::all_reduce || c.kind == Collective::all_gather) gather(c.x, parts);
  } catch (const Missing& missing) {
    fail(Exit::unavailable, describe(ticket), reason(missing, timeout_));
  }
  note_finished(ticket);
}

void HostCommunicator::meet(int64_t ticket, const Collective& c) {
  struct Header {
    int64_t ticket, kind, bytes;
  };
  Header mine{ticket, c.kind, c.x ? int64_t(c.x.bytes()) : 0};
  std::vector<Header> others(size);
  std::vector<Message> out, in;
  for (int r = 0; r < size; r++) {
    if (r == rank) continue;
    out.push_back({r, reinterpret_cast<char*>(&mine), sizeof mine});
    in.push_back({r, reinterpret_cast<char*>(&others[r]), sizeof mine});
  }
  trade(out, in);
  for (int r = 0; r < size; r++)
    if (r != rank && std::memcmp(&others[r], &mine, sizeof mine) != 0)
      fail(Exit::internal, describe(ticket), " meets rank ", r, " at collective ", others[r].ticket, " (", name_of(Collective::Kind(others[r].kind & 3)), ", ",
           others[r].bytes, " bytes)");
}

// Every rank sends what it has of each part to the part's owner, which adds the terms by halves.
template <class T> void HostCommunicator::reduce(const Tensor& x, const std::vector<Part>& parts) {
  int64_t own = 0;
  for (const Part& part : parts) own += part.owner == rank ? part.size() : 0;
  scratch_.resize(size_t(own) * size_t(size) * sizeof(T));
  T* terms = reinterpret_cast<T*>(scratch_.data());   // [rank, own]
  std::vector<Message> out, in;
  for (int64_t begin = 0; const Part& part : parts) {
    if (part.size() == 0) continue;   // the same parts at every rank: nobody waits for an empty one
    const size_t bytes = size_t(part.size()) * sizeof(T);
    if (part.owner != rank) {
      out.push_back({part.owner, at(x, part.begin), bytes});
      continue;
    }
    for (int r = 0; r < size; r++) {
      T* to = terms + r * own + begin;
      if (r == rank) std::memcpy(to, at(x, part.begin), bytes);
      else in.push_back({r, reinterpret_cast<char*>(to), bytes});
    }
    begin += part.size();
  }
  trade(out, in);
  std::vector<T*> by_rank;
  for (int r = 0; r < size; r++) by_rank.push_back(terms + r * own);
  add_halves(by_rank.data(), size, own);
  for (int64_t begin = 0; const Part& part : parts) {
    if (part.owner != rank || part.size() == 0) continue;
    std::memcpy(at(x, part.begin), terms + begin, size_t(part.size()) * sizeof(T));
    begin += part.size();
  }
}

void HostCommunicator::gather(const Tensor& x, const std::vector<Part>& parts) {
  std::vector<Message> out, in;
  for (const Part& part : parts) {
    if (part.size() == 0) continue;
    const size_t bytes = size_t(part.size()) * size_of(x.dtype());
    if (part.owner != rank) in.push_back({part.owner, at(x, part.begin), bytes});
    for (int r = 0; r < size && part.owner == rank; r++)
      if (r != rank) out.push_back({r, at(x, part.begin), bytes});
  }
  trade(out, in);
}
