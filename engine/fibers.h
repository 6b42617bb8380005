// fibers.h: runs CUDA kernels on the host: one block at a time, one fiber a thread, no GPU. What kernel.h includes when g++ compiles.
//
// Each warp runs as far as it can before the next one starts: that order makes a missing barrier show as a wrong number. Under
// -fsanitize=thread a missing barrier is a reported race, under -fsanitize=address an overrun of shared memory is a reported overflow.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct dim3 { unsigned x, y, z; constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
              constexpr unsigned count() const { return x * y * z; } };
inline thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace fibers {

#if defined(__SANITIZE_THREAD__)
extern "C" { void* __tsan_get_current_fiber(); void* __tsan_create_fiber(unsigned); void __tsan_destroy_fiber(void*);
             void __tsan_switch_to_fiber(void*, unsigned); void __tsan_acquire(void*); void __tsan_release(void*);
             void AnnotateBenignRaceSized(const char*, int, const volatile void*, unsigned long, const char*); }
#define FIBERS_HIDDEN __attribute__((no_sanitize("thread")))
inline void* tsan_create() { return __tsan_create_fiber(0); }
inline void tsan_enter(void* f) { __tsan_switch_to_fiber(f, 1); }   // 1: the switch itself orders nothing
inline void tsan_destroy(void* f) { __tsan_destroy_fiber(f); }
inline void tsan_release(void* p) { __tsan_release(p); }
inline void tsan_acquire(void* p) { __tsan_acquire(p); }
inline void* tsan_self() { return __tsan_get_current_fiber(); }
inline void tsan_ignore(const void* p, size_t n) { AnnotateBenignRaceSized(__FILE__, __LINE__, p, n, "scheduler"); }
#else
#define FIBERS_HIDDEN
inline void* tsan_create() { return nullptr; }
inline void tsan_enter(void*) {}
inline void tsan_destroy(void*) {}
inline void tsan_release(void*) {}
inline void tsan_acquire(void*) {}
inline void* tsan_self() { return nullptr; }
inline void tsan_ignore(const void*, size_t) {}
#endif
#if defined(__SANITIZE_ADDRESS__)
extern "C" { void __asan_unpoison_memory_region(const volatile void*, unsigned long);
             void __sanitizer_start_switch_fiber(void**, const void*, unsigned long);
             void __sanitizer_finish_switch_fiber(void*, const void**, unsigned long*); }
inline void asan_forget(void* p, size_t n) { __asan_unpoison_memory_region(p, n); }
// The sanitizer must know which stack it stands on, or it takes an exception thrown on a fiber for a broken stack.
inline void asan_leave(void** mine, const void* stack, size_t n) { __sanitizer_start_switch_fiber(mine, stack, n); }
inline void asan_arrive(void* mine, const void** from, size_t* n) { __sanitizer_finish_switch_fiber(mine, from, n); }
#else
inline void asan_forget(void*, size_t) {}
inline void asan_leave(void**, const void*, size_t) {}
inline void asan_arrive(void*, const void**, size_t*) {}
#endif

extern "C" void fiber_switch(void** from, void* to);
__asm__(R"(
.text
.weak fiber_switch
.type fiber_switch, @function
fiber_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

enum class State { ready, at_block_barrier, at_warp_barrier, done };
constexpr size_t stack_bytes = 64 * 1024;

// A thread's asynchronous copies on their way (mma.h). A null source means zeros.
struct PendingCopy {
  void* to;
  const void* from;
};
struct PendingCopies {
  std::vector<PendingCopy> copies;
  std::vector<size_t> groups;   // where each ends
  void finish(size_t count) {
    for (size_t i = 0; i < count; i++)
      if (copies[i].from) std::memcpy(copies[i].to, copies[i].from, 16);
      else std::memset(copies[i].to, 0, 16);
    copies.erase(copies.begin(), copies.begin() + ptrdiff_t(count));
  }
};

struct Fiber {
  void* stack_pointer = nullptr;
  std::unique_ptr<char[]> stack;
  dim3 thread;
  unsigned index = 0, block_phase = 0, warp_phase = 0;
  State state = State::ready;
  void* tsan = nullptr;
  PendingCopies pending;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<unsigned> warp_order;
  std::vector<char> dynamic_shared, warp_token;     // two tokens a warp, used alternately
  struct Slot { alignas(16) unsigned char bytes[16]; };
  std::vector<Slot> exchange;                       // one slot a thread, for shuffles
  std::function<void()> kernel;
  std::exception_ptr error;
  Fiber* current = nullptr;
  void* scheduler = nullptr;
  void* tsan = nullptr;
  const void* scheduler_stack = nullptr;            // for the address sanitizer
  size_t scheduler_stack_bytes = 0;
  char start_token = 0, block_token[2] = {}, end_token = 0;
};
inline thread_local Block* block = nullptr;
inline unsigned schedule = 0;   // 0: in order; odd: lanes backwards; above 1: warps shuffled

FIBERS_HIDDEN inline void yield(State s) {
  Fiber* me = block->current;
  me->state = s;
  tsan_enter(block->tsan);
  void* frames = nullptr;
  asan_leave(&frames, block->scheduler_stack, block->scheduler_stack_bytes);
  fiber_switch(&me->stack_pointer, block->scheduler);
  asan_arrive(frames, &block->scheduler_stack, &block->scheduler_stack_bytes);
}

// A thread of one block after the other.
inline void entry() {
  asan_arrive(nullptr, &block->scheduler_stack, &block->scheduler_stack_bytes);
  for (;;) {
    tsan_acquire(&block->start_token);
    try { block->kernel(); } catch (...) { block->error = std::current_exception(); }
    tsan_release(&block->end_token);
    yield(State::done);
  }
}

FIBERS_HIDDEN inline void resume(Fiber& f) {
  block->current = &f;
  threadIdx = f.thread;
  tsan_enter(f.tsan);
  void* frames = nullptr;
  asan_leave(&frames, f.stack.get(), stack_bytes);
  fiber_switch(&block->scheduler, f.stack_pointer);
  asan_arrive(frames, nullptr, nullptr);
  if (!block->error) return;
  tsan_acquire(&block->end_token);
  std::rethrow_exception(block->error);
}

FIBERS_HIDDEN inline void make_stack(Fiber& f) {
  f.stack.reset(new char[stack_bytes]);
  asan_forget(f.stack.get(), stack_bytes);
  auto top = (reinterpret_cast<uintptr_t>(f.stack.get()) + stack_bytes) & ~uintptr_t(15);
  auto sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;
  *--sp = reinterpret_cast<void*>(&entry);
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  f.stack_pointer = sp;
  f.tsan = tsan_create();
}

FIBERS_HIDDEN inline void prepare(Fiber& f, unsigned index) {
  if (!f.stack) make_stack(f);
  f.state = State::ready;
  f.index = index;
  f.block_phase = f.warp_phase = 0;
  f.pending.copies.clear();
  f.pending.groups.clear();
  f.thread = dim3(index % blockDim.x, index / blockDim.x % blockDim.y, index / (blockDim.x * blockDim.y));
}

// Runs each warp as far as it can go before the next one starts: the order that shows a missing barrier.
FIBERS_HIDDEN inline void run_block() {
  auto& fibers = block->fibers;
  const unsigned n = fibers.size();
  for (unsigned i = 0; i < n; i++) prepare(fibers[i], i);
  tsan_release(&block->start_token);
  for (;;) {
    for (unsigned w : block->warp_order) {
      const unsigned begin = w * 32, end = std::min(n, begin + 32);
      for (bool again = true; again;) {
        again = false;
        for (unsigned k = begin; k < end; k++) {
          Fiber& f = fibers[schedule & 1 ? end - 1 - (k - begin) : k];
          if (f.state == State::ready) resume(f);
        }
        unsigned live = 0, waiting = 0;
        for (unsigned i = begin; i < end; i++) {
          live += fibers[i].state != State::done;
          waiting += fibers[i].state == State::at_warp_barrier;
        }
        if (waiting == 0) break;
        if (waiting != live) throw std::runtime_error("divergent warp: some lanes wait at a shuffle, others at __syncthreads");
        for (unsigned i = begin; i < end; i++)
          if (fibers[i].state == State::at_warp_barrier) fibers[i].state = State::ready;
        again = true;
      }
    }
    const unsigned done = std::count_if(fibers.begin(), fibers.end(), [](auto& f) { return f.state == State::done; });
    if (done == n) { tsan_acquire(&block->end_token); return; }
    if (done) throw std::runtime_error("__syncthreads: " + std::to_string(n - done) + " of " + std::to_string(n) + " threads wait, the rest returned");
    for (auto& f : fibers) f.state = State::ready;
  }
}

}  // namespace fibers

inline void __syncthreads() {
  char* token = &fibers::block->block_token[fibers::block->current->block_phase++ & 1];
  fibers::tsan_release(token);
  fibers::yield(fibers::State::at_block_barrier);
  fibers::tsan_acquire(token);
}

inline void __syncwarp(unsigned = ~0u) {
  auto* f = fibers::block->current;
  char* token = &fibers::block->warp_token[f->index / 32 * 2 + (f->warp_phase++ & 1)];
  fibers::tsan_release(token);
  fibers::yield(fibers::State::at_warp_barrier);
  fibers::tsan_acquire(token);
}

inline unsigned lane_id() { return fibers::block->current->index % 32; }

template <class T> T read_lane(T value, unsigned lane) {
  static_assert(sizeof(T) <= 16);
  auto& b = *fibers::block;
  const unsigned me = b.current->index;
  std::memcpy(b.exchange[me].bytes, &value, sizeof(T));
  __syncwarp();
  T result;
  std::memcpy(&result, b.exchange[(me & ~31u) + lane].bytes, sizeof(T));
  __syncwarp();
  return result;
}
template <class T> T __shfl_sync(unsigned, T v, int lane) { return read_lane(v, lane & 31); }
template <class T> T __shfl_xor_sync(unsigned, T v, int mask) { return read_lane(v, lane_id() ^ mask); }
template <class T> T __shfl_down_sync(unsigned, T v, int by) { return read_lane(v, lane_id() + by < 32 ? lane_id() + by : lane_id()); }

template <class T> T* dynamic_shared() { return reinterpret_cast<T*>(fibers::block->dynamic_shared.data()); }

struct Launch { dim3 grid, block; size_t shared = 0; };

constexpr size_t most_shared_bytes = 227 * 1024;   // of a block on sm_90; sm_80 has 163 KiB

template <class... P, class... A> void launch(const Launch& l, void (*kernel)(P...), A... args) {
  if (l.shared > most_shared_bytes) throw std::runtime_error("a block has at most 227 KiB of shared memory, " + std::to_string(l.shared) + " bytes asked for");
  fibers::Block b;
  const unsigned n = l.block.count(), warps = (n + 31) / 32;
  b.fibers.resize(n);
  b.exchange.resize(warps * 32);
  b.warp_token.resize(warps * 2);
  b.warp_order.resize(warps);
  for (unsigned i = 0; i < warps; i++) b.warp_order[i] = i;
  b.kernel = [=] { kernel(P(args)...); };
  b.tsan = fibers::tsan_self();
  for (auto* d : {&gridDim, &blockDim, &blockIdx, &threadIdx}) fibers::tsan_ignore(d, sizeof *d);
  fibers::tsan_ignore(&fibers::block, sizeof fibers::block);
  fibers::tsan_ignore(&b, sizeof b);
  fibers::tsan_ignore(b.exchange.data(), b.exchange.size() * 16);
  fibers::tsan_ignore(b.fibers.data(), b.fibers.size() * sizeof(fibers::Fiber));
  fibers::block = &b;
  gridDim = l.grid;
  blockDim = l.block;
  unsigned rng = fibers::schedule;
  for (unsigned z = 0; z < l.grid.z; z++)
    for (unsigned y = 0; y < l.grid.y; y++)
      for (unsigned x = 0; x < l.grid.x; x++) {
        blockIdx = dim3(x, y, z);
        if (fibers::schedule > 1)
          for (unsigned i = warps; i > 1; i--) {
            rng = rng * 1664525u + 1013904223u;
            std::swap(b.warp_order[i - 1], b.warp_order[(rng >> 8) % i]);
          }
        b.dynamic_shared.assign(l.shared, char(0xFF));   // NaN for every float type: reads before writes show
        fibers::run_block();
      }
  for (auto& f : b.fibers) if (f.tsan) fibers::tsan_destroy(f.tsan);
  fibers::block = nullptr;
}
