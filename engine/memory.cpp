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
thread_local uint64_t* address_trace = nullptr;
std::atomic<size_t> violations{0};

size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

MemoryDebug& memory_debug() {
  static MemoryDebug debug;
  return debug;
}

size_t guard_violations() { return violations; }

Arena::Arena(size_t reserve_bytes) { reserve_host(reserve_bytes); }

Arena::Arena(Device device) : device_(device) {
  if (device.kind == Device::cpu) reserve_host(size_t(256) << 30);
}

// Address space only: no page is backed until it is touched. A system that limits address space gets a smaller arena.
void Arena::reserve_host(size_t bytes) {
  void* range = MAP_FAILED;
  for (; bytes >= huge_page; bytes /= 2) {
    range = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range != MAP_FAILED) break;
  }
  check(range != MAP_FAILED, "[arena] no address space left");
  madvise(range, bytes, MADV_HUGEPAGE);
  next_ = static_cast<char*>(range);
  end_ = next_ + bytes;
  chunks_.push_back({next_, bytes});
}

// What is left of the last chunk stays to be used. Chunks end short of their memory, so that two never merge.
void Arena::add_chunk(size_t bytes) {
  constexpr size_t least = size_t(256) << 20;
  const size_t size = rounded(std::max(bytes, least), huge_page) + alignment;
  char* base = static_cast<char*>(device_allocate(device_, size));
  if (!base)
    fail(Exit::failure, "out of memory on ", device_, ": ", size >> 20,
         " MiB more are not to be had; make data.batch_size smaller or set run.checkpoint_activations");
  if (end_ > next_) add_free(next_, size_t(end_ - next_));
  spanned_ += size_t(end_ - next_);
  next_ = base;
  end_ = base + size - alignment;
  chunks_.push_back({base, size});
}

Arena::~Arena() {
  for (const auto& [base, size] : chunks_)
    if (device_.kind == Device::cpu) munmap(base, size);
    else device_release(device_, base);
}

void* Arena::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  bytes = rounded(std::max<size_t>(bytes, 1), alignment);
  const auto fit = free_by_size_.lower_bound({bytes, nullptr});
  if (fit != free_by_size_.end()) {
    const auto [size, data] = *fit;
    used_ += bytes;
    free_by_size_.erase(fit);
    free_by_address_.erase(data);
    if (size > bytes) add_free(data + bytes, size - bytes);
    return data;
  }
  if (bytes > size_t(end_ - next_)) {
    if (device_.kind == Device::cpu)
      fail(Exit::failure, "out of memory: a step needs more than ", chunks_[0].second >> 30, " GiB; make data.batch_size or run.micro_batch smaller");
    add_chunk(bytes);
  }
  char* data = next_;
  next_ += bytes;
  spanned_ += bytes;
  used_ += bytes;
  return data;
}

void Arena::add_free(char* data, size_t bytes) {
  free_by_address_[data] = bytes;
  free_by_size_.insert({bytes, data});
}

void Arena::release(void* released, size_t bytes) {
  const std::lock_guard lock(mutex_);
  size_t size = rounded(std::max<size_t>(bytes, 1), alignment);
  char* data = static_cast<char*>(released);
  used_ -= size;
  auto next = free_by_address_.lower_bound(data);
  if (next != free_by_address_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == data) {
      data = before->first;
      size += before->second;
      free_by_size_.erase({before->second, before->first});
      free_by_address_.erase(before);
    }
  }
  if (next != free_by_address_.end() && data + size == next->first) {
    size += next->second;
    free_by_size_.erase({next->second, next->first});
    free_by_address_.erase(next);
  }
  add_free(data, size);
}

namespace {

char* from_pool(Device device, size_t bytes) {
  if (device.kind == Device::cuda) return static_cast<char*>(device_allocate(device, std::max<size_t>(bytes, 1)));
  const size_t align = bytes >= huge_page ? huge_page : alignment;
  void* data = std::aligned_alloc(align, rounded(std::max<size_t>(bytes, 1), align));
  if (data && align == huge_page) madvise(data, rounded(bytes, align), MADV_HUGEPAGE);
  return static_cast<char*>(data);
}

}  // namespace

Storage::Storage(size_t bytes, Device device)
    : bytes_(bytes), device_(device), arena_(current_arena && current_arena->device() == device ? current_arena : nullptr) {
  const bool guard = memory_debug().guard;
  allocated_ = bytes + (guard ? guard_bytes : 0);
  data_ = arena_ ? static_cast<char*>(arena_->allocate(allocated_)) : from_pool(device, allocated_);
  if (arena_ && address_trace) *address_trace = (*address_trace ^ uint64_t(reinterpret_cast<uintptr_t>(data_))) * 0x100000001b3ull;
  if (!data_) fail(Exit::failure, "out of memory: ", allocated_ >> 20, " MiB are not to be had on ", device);
  if (memory_debug().poison) fill_bytes(data_, device, 0xFF, bytes_);
  if (guard) fill_bytes(data_ + bytes_, device, guard_pattern, guard_bytes);
}

Storage::~Storage() {
  if (allocated_ > bytes_) {
    std::vector<unsigned char> behind(allocated_ - bytes_);
    copy_bytes(behind.data(), Device{}, data_ + bytes_, device_, behind.size());
    for (const unsigned char byte : behind) violations += byte != guard_pattern;
  }
  if (arena_)
    arena_->release(data_, allocated_);
  else if (device_.kind == Device::cuda)
    device_release(device_, data_);
  else
    std::free(data_);
}

ArenaScope::ArenaScope(Arena* arena) : outer_(current_arena) { current_arena = arena; }
ArenaScope::~ArenaScope() { current_arena = outer_; }

AddressTrace::AddressTrace() {
  check(address_trace == nullptr, "[memory] one trace at a time");
  address_trace = &hash_;
}
AddressTrace::~AddressTrace() { address_trace = nullptr; }
