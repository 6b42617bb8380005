// profile.cpp: a stack of ranges a thread; the clock is charged to the innermost one.
#include "engine/profile.h"

#include "engine/autograd.h"

namespace {
thread_local Profile* current = nullptr;
thread_local OpRange* innermost = nullptr;
thread_local OpCost* innermost_cost = nullptr;
}  // namespace

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
  innermost_cost = &profile_->table[direction_ == backward ? std::string(op_) + " backward" : op_];
  innermost_cost->calls++;
  since_ = std::chrono::steady_clock::now();
}

void OpRange::charge() {
  const auto now = std::chrono::steady_clock::now();
  OpCost& cost = profile_->table[direction_ == backward ? std::string(op_) + " backward" : op_];
  cost.seconds += std::chrono::duration<double>(now - since_).count();
  since_ = now;
}

OpRange::~OpRange() {
  if (!profile_) return;
  charge();
  innermost = outer_;
  innermost_cost = nullptr;
  if (!outer_) return;
  innermost_cost = &profile_->table[outer_->direction_ == backward ? std::string(outer_->op_) + " backward" : outer_->op_];
  outer_->since_ = std::chrono::steady_clock::now();
}

void count_macs(int64_t n) {
  if (!current || !innermost_cost) return;
  innermost_cost->macs += n;
  if (const std::string* layer = running_layer()) current->layer_macs[*layer] += n;
}
