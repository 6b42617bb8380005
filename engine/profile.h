// profile.h: where the time of a step goes, by op and direction, with the multiply-adds that each op counts.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <string>

struct OpCost {
  double seconds = 0;
  int64_t calls = 0, macs = 0;
};

// What ran on this thread while a Profile was open, by "op" or "op backward". Times of nested ranges count for the inner one only.
class Profile {
 public:
  Profile();
  ~Profile();
  Profile(const Profile&) = delete;
  std::map<std::string, OpCost> table;
  std::map<std::string, int64_t> layer_macs;   // by the layer that was running
  int64_t macs() const;

 private:
  Profile* outer_;
};
Profile* open_profile();

// Names the op that runs now. One line at the top of an op; the tape does it for backwards.
class OpRange {
 public:
  enum Direction { forward, backward };
  explicit OpRange(const char* op, Direction direction = forward);
  ~OpRange();
  OpRange(const OpRange&) = delete;

 private:
  void charge();
  const char* op_;
  Direction direction_;
  Profile* profile_;
  OpRange* outer_ = nullptr;
  std::chrono::steady_clock::time_point since_;
};

// Counts multiply-adds (one each for a multiply and its add) for the op that runs now.
void count_macs(int64_t n);
