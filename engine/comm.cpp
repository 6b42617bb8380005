// comm.cpp: what all communicators share: the record of the last collectives, and the communicator of one process.
#include "engine/comm.h"

#include <chrono>
#include <iomanip>

namespace {

constexpr size_t kept_records = 256;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Solo : public Communicator {
 public:
  Solo() : Communicator(0, 1) {}
  int64_t start(Collective collective) override {
    const int64_t ticket = note_queued(collective);
    note_started(ticket);
    note_finished(ticket);
    return ticket;
  }
  void wait(int64_t) override {}
};

}  // namespace

const char* name_of(Collective::Kind kind) {
  const char* names[] = {"all_reduce", "reduce_scatter", "all_gather", "barrier"};
  return names[kind];
}

Communicator::Communicator(int rank, int size) : rank(rank), size(size), born_(seconds()) {
  check(size >= 1 && rank >= 0 && rank < size, "[comm] the rank must lie in 0 .. ", size - 1, ", got ", rank);
}

int64_t Communicator::reduce_scatter(const Tensor& x, std::vector<Part> parts, const std::string& what) {
  return start({Collective::reduce_scatter, x, std::move(parts), what});
}

int64_t Communicator::all_gather(const Tensor& x, std::vector<Part> parts, const std::string& what) {
  return start({Collective::all_gather, x, std::move(parts), what});
}

std::vector<CollectiveRecord> Communicator::recent() const {
  const std::lock_guard lock(records_mutex_);
  return {records_.begin(), records_.end()};
}

int64_t Communicator::note_queued(const Collective& c) {
  for (const Part& part : c.parts)
    check(part.begin >= 0 && part.begin <= part.end && part.end <= c.x.size() && part.owner >= 0 && part.owner < size, "[comm] part ", part.begin, " .. ",
          part.end, " of rank ", part.owner, " does not lie in ", c.what, " of ", c.x.size());
  const std::lock_guard lock(records_mutex_);
  records_.push_back({next_ticket_, name_of(c.kind), c.what, c.x ? c.x.bytes() : 0, now(), -1, -1});
  if (records_.size() > kept_records) records_.pop_front();
  return next_ticket_++;
}

CollectiveRecord* Communicator::record(int64_t ticket) {
  const int64_t at = ticket - (next_ticket_ - int64_t(records_.size()));
  return at < 0 ? nullptr : &records_[size_t(at)];
}

void Communicator::note_started(int64_t ticket) {
  const std::lock_guard lock(records_mutex_);
  if (CollectiveRecord* r = record(ticket)) r->started = now();
}

void Communicator::note_finished(int64_t ticket) {
  const std::lock_guard lock(records_mutex_);
  if (CollectiveRecord* r = record(ticket)) r->finished = now();
}

std::string Communicator::describe(int64_t ticket) const {
  for (const CollectiveRecord& r : recent())
    if (r.number == ticket) {
      std::ostringstream bytes;
      bytes << std::fixed << std::setprecision(1);
      if (r.bytes < 1000) bytes << r.bytes << " bytes";
      else if (r.bytes < 1000000) bytes << double(r.bytes) / 1e3 << " kB";
      else bytes << double(r.bytes) / 1e6 << " MB";
      return str("rank ", rank, " of ", size, ": collective ", ticket, " (", r.kind, " of ", r.what, ", ", bytes.str(), ")");
    }
  return str("rank ", rank, " of ", size, ": collective ", ticket);
}

double Communicator::now() const { return seconds() - born_; }

std::unique_ptr<Communicator> solo_communicator() { return std::make_unique<Solo>(); }
