// memory.h: two lifetimes only. The pool holds what lives long (parameters, moments, staging); an arena holds what is made inside a step.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "engine/device.h"

// Memory of one device that grows and is never given back. Best fit with merging, and a choice that depends only on the sequence of
// requests: the same step gets the same addresses each time, which is what a captured graph needs.
class Arena {
 public:
  explicit Arena(size_t reserve_bytes = size_t(256) << 30);   // on the host: address space, backed when it is touched
  explicit Arena(Device device);                              // grows by chunks of the device's memory
  ~Arena();
  Arena(const Arena&) = delete;

  void* allocate(size_t bytes);
  void release(void* data, size_t bytes);
  Device device() const { return device_; }
  size_t peak_bytes() const { return spanned_; }   // the most that was ever spanned
  size_t used_bytes() const { return used_; }

 private:
  void reserve_host(size_t bytes);
  void add_chunk(size_t bytes);
  void add_free(char* data, size_t bytes);

  std::mutex mutex_;
  Device device_;
  std::vector<std::pair<char*, size_t>> chunks_;
  char *next_ = nullptr, *end_ = nullptr;               // what was never handed out of the last chunk
  size_t spanned_ = 0, used_ = 0;
  std::map<char*, size_t> free_by_address_;
  std::set<std::pair<size_t, char*>> free_by_size_;
};

// Bytes with an owner. Made in the arena that is open on this thread if it is the device's, or else in the pool.
class Storage {
 public:
  Storage(size_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0, allocated_ = 0;
  Device device_;
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

// Remembers where this thread's arena storage lay while it lives: two runs of a step have one hash if a graph of the first can be replayed.
class AddressTrace {
 public:
  AddressTrace();
  ~AddressTrace();
  AddressTrace(const AddressTrace&) = delete;
  uint64_t hash() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325ull;
};

// Switches for tests: fresh memory filled with 0xFF (NaN for every float type), and guard bytes behind every allocation that
// are looked at when it is freed. guard_violations() counts the broken ones.
struct MemoryDebug {
  bool poison = false, guard = false;
};
MemoryDebug& memory_debug();
size_t guard_violations();
