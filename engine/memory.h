// memory.h: two lifetimes only. The pool holds what lives long (parameters, moments, staging); an arena holds what is made inside a step.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <set>

// A range of address space that grows once and is never given back. Best fit with merging, and a choice that depends only on the
// sequence of requests: the same step gets the same addresses each time, which is what a captured graph needs.
class Arena {
 public:
  explicit Arena(size_t reserve_bytes = size_t(256) << 30);
  ~Arena();
  Arena(const Arena&) = delete;

  void* allocate(size_t bytes);
  void release(void* data, size_t bytes);
  size_t peak_bytes() const { return high_water_; }   // the most that was ever spanned
  size_t used_bytes() const { return used_; }

 private:
  std::mutex mutex_;
  char* base_ = nullptr;
  size_t reserved_ = 0, high_water_ = 0, used_ = 0;
  std::map<size_t, size_t> free_by_offset_;              // offset -> size
  std::set<std::pair<size_t, size_t>> free_by_size_;     // (size, offset)
};

// Bytes with an owner. Made in the arena that is open on this thread, or else in the pool.
class Storage {
 public:
  explicit Storage(size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0, allocated_ = 0;
  Arena* arena_ = nullptr;
};

// While it lives, storage made on this thread comes from the arena. A null arena means the pool.
class ArenaScope {
 public:
  explicit ArenaScope(Arena* arena);
  ~ArenaScope();
  ArenaScope(const ArenaScope&) = delete;

 private:
  Arena* outer_;
};

// Switches for tests: fresh memory filled with 0xFF (NaN for every float type), and guard bytes behind every allocation that
// are looked at when it is freed. guard_violations() counts the broken ones.
struct MemoryDebug {
  bool poison = false, guard = false;
};
MemoryDebug& memory_debug();
size_t guard_violations();
