// profile.cpp: a stack of ranges a thread; the clock is charged to the innermost one.
#include "engine/profile.h"

#include <algorithm>

namespace {
thread_local Profile* current = nullptr;
thread_local OpRange* innermost = nullptr;
thread_local bool is_dry = false;
}  // namespace

void OpCost::add(const OpCost& other) {
  seconds += other.seconds;
  calls += other.calls;
  macs += other.macs;
  kernels += other.kernels;
  bytes += other.bytes;
  roofline_seconds += other.roofline_seconds;
}

Profile::Profile() : outer_(current) { current = this; }
Profile::~Profile() { current = outer_; }
Profile* open_profile() { return current; }

int64_t Profile::macs() const {
  int64_t sum = 0;
  for (const auto& [op, cost] : table) sum += cost.macs;
  return sum;
}

OpRange::OpRange(const char* op, Direction direction) : op_(op), direction_(direction), profile_(current) {
  if (!profile_) return;
  outer_ = innermost;
  if (outer_) outer_->charge();
  innermost = this;
  profile_->table[name()].calls++;
  since_ = std::chrono::steady_clock::now();
}

void OpRange::charge() {
  const auto now = std::chrono::steady_clock::now();
  profile_->table[name()].seconds += std::chrono::duration<double>(now - since_).count();
  since_ = now;
}

OpRange::~OpRange() {
  if (!profile_) return;
  charge();
  innermost = outer_;
  if (outer_) outer_->since_ = std::chrono::steady_clock::now();
}

void count_kernel(std::initializer_list<Moved> read, std::initializer_list<Moved> written, int64_t macs, Units units) {
  std::optional<Device> place;
  for (const auto& moved : {read, written})
    for (const Moved& x : moved) {
      if (!x.device) continue;
      check(!place || *place == *x.device, "[", innermost ? innermost->name() : "kernel", "] operands on ", *place, " and ", *x.device);
      place = x.device;
    }
  if (!current || !innermost) return;
  OpCost cost{.macs = macs, .kernels = 1};
  for (const Moved& from : read) cost.bytes += from.bytes;
  for (const Moved& to : written) cost.bytes += to.bytes + to.read_back;
  const double flops = units == Units::tensor ? roofline::tensor_flops : roofline::vector_flops;
  cost.roofline_seconds = std::max(2 * double(macs) / flops, double(cost.bytes) / roofline::bytes_per_second);
  const std::string op = innermost->name();
  current->table[op].add(cost);
  const std::string* layer = running_layer();
  current->layers[layer ? *layer : ""][op].add(cost);
}

DryRun::DryRun() : outer_(is_dry) { is_dry = true; }
DryRun::~DryRun() { is_dry = outer_; }
bool dry_run() { return is_dry; }
