// memory.cpp: the arena and the pool, both advised to huge pages: a first touch costs 1.5 us for each small page.
#include "engine/memory.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "engine/check.h"

namespace {

constexpr size_t alignment = 256, huge_page = size_t(2) << 20, guard_bytes = 64;
constexpr unsigned char guard_pattern = 0xA5;

thread_local Arena* current_arena = nullptr;
std::atomic<size_t> violations{0};

size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

MemoryDebug& memory_debug() {
  static MemoryDebug debug;
  return debug;
}

size_t guard_violations() { return violations; }

Arena::Arena(size_t reserve_bytes) {
  // Address space only: no page is backed until it is touched. A system that limits address space gets a smaller arena.
  void* range = MAP_FAILED;
  for (reserved_ = reserve_bytes; reserved_ >= huge_page; reserved_ /= 2) {
    range = mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range != MAP_FAILED) break;
  }
  check(range != MAP_FAILED, "[arena] no address space left");
  base_ = static_cast<char*>(range);
  madvise(base_, reserved_, MADV_HUGEPAGE);
}

Arena::~Arena() { munmap(base_, reserved_); }

void* Arena::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  bytes = rounded(std::max<size_t>(bytes, 1), alignment);
  const auto fit = free_by_size_.lower_bound({bytes, 0});
  if (fit != free_by_size_.end()) {
    const auto [size, offset] = *fit;
    used_ += bytes;
    free_by_size_.erase(fit);
    free_by_offset_.erase(offset);
    if (size > bytes) {
      free_by_offset_[offset + bytes] = size - bytes;
      free_by_size_.insert({size - bytes, offset + bytes});
    }
    return base_ + offset;
  }
  const size_t offset = high_water_;
  if (offset + bytes > reserved_)
    fail(Exit::failure, "out of memory: a step needs more than ", reserved_ >> 30, " GiB; make data.batch_size or run.micro_batch smaller");
  high_water_ += bytes;
  used_ += bytes;
  return base_ + offset;
}

void Arena::release(void* data, size_t bytes) {
  const std::lock_guard lock(mutex_);
  size_t size = rounded(std::max<size_t>(bytes, 1), alignment), offset = static_cast<char*>(data) - base_;
  used_ -= size;
  auto next = free_by_offset_.lower_bound(offset);
  if (next != free_by_offset_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      size += before->second;
      free_by_size_.erase({before->second, before->first});
      free_by_offset_.erase(before);
    }
  }
  if (next != free_by_offset_.end() && offset + size == next->first) {
    size += next->second;
    free_by_size_.erase({next->second, next->first});
    free_by_offset_.erase(next);
  }
  free_by_offset_[offset] = size;
  free_by_size_.insert({size, offset});
}

Storage::Storage(size_t bytes) : bytes_(bytes), arena_(current_arena) {
  const bool guard = memory_debug().guard;
  allocated_ = bytes + (guard ? guard_bytes : 0);
  if (arena_) {
    data_ = static_cast<char*>(arena_->allocate(allocated_));
  } else {
    const size_t align = allocated_ >= huge_page ? huge_page : alignment;
    data_ = static_cast<char*>(std::aligned_alloc(align, rounded(std::max<size_t>(allocated_, 1), align)));
    if (!data_) fail(Exit::failure, "out of memory: ", allocated_ >> 20, " MiB are not to be had");
    if (align == huge_page) madvise(data_, rounded(allocated_, align), MADV_HUGEPAGE);
  }
  if (memory_debug().poison) std::memset(data_, 0xFF, bytes_);
  if (guard) std::memset(data_ + bytes_, guard_pattern, guard_bytes);
}

Storage::~Storage() {
  if (allocated_ > bytes_)
    for (size_t i = bytes_; i < allocated_; i++) violations += static_cast<unsigned char>(data_[i]) != guard_pattern;
  if (arena_)
    arena_->release(data_, allocated_);
  else
    std::free(data_);
}

ArenaScope::ArenaScope(Arena* arena) : outer_(current_arena) { current_arena = arena; }
ArenaScope::~ArenaScope() { current_arena = outer_; }
