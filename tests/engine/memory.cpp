// The arena: best fit, merging, addresses that repeat; and the guards that find a write past the end.
#include <doctest/doctest.h>

#include "engine/memory.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "engine/random.h"
#include "engine/tensor.h"

namespace {

constexpr size_t small = size_t(64) << 20;   // address space of a test's arena

size_t gap(void* from, void* to) { return size_t(static_cast<char*>(to) - static_cast<char*>(from)); }

// Allocates and frees in a random but fixed order and returns the addresses, seen from the first.
std::vector<size_t> addresses_of_a_step(Arena& arena, bool fill) {
  struct Piece {
    char* data;
    size_t bytes;
    char mark;
  };
  RandomSequence random(RandomStream(5, "arena"), 0, 0);
  std::vector<Piece> alive;
  std::vector<size_t> out;
  char* first = nullptr;
  for (int i = 0; i < 2000; i++) {
    if (!alive.empty() && random.chance(0.48)) {
      const size_t which = random.below(alive.size());
      const Piece piece = alive[which];
      for (size_t b = 0; fill && b < piece.bytes; b++)
        if (piece.data[b] != piece.mark) FAIL("two live pieces overlap");
      arena.release(piece.data, piece.bytes);
      alive.erase(alive.begin() + which);
      continue;
    }
    const size_t bytes = 1 + random.below(5000);
    char* data = static_cast<char*>(arena.allocate(bytes));
    if (!first) first = data;
    if (fill) std::memset(data, char(i), bytes);
    alive.push_back({data, bytes, char(i)});
    out.push_back(size_t(data - first));
  }
  for (const Piece& piece : alive) arena.release(piece.data, piece.bytes);
  return out;
}

}  // namespace

TEST_CASE("arena: the smallest gap that fits is taken, and its rest stays free") {
  Arena arena(small);
  void* a = arena.allocate(4096);
  void* wall1 = arena.allocate(256);
  void* b = arena.allocate(1024);
  void* wall2 = arena.allocate(256);
  arena.release(a, 4096);
  arena.release(b, 1024);
  CHECK(arena.allocate(1000) == b);
  CHECK(arena.allocate(1024) == a);
  CHECK(gap(a, arena.allocate(512)) == 1024);
  CHECK(arena.used_bytes() == 1024 + 1024 + 512 + 2 * 256);
  CHECK(arena.peak_bytes() == 4096 + 1024 + 2 * 256);
  arena.release(wall1, 256);
  arena.release(wall2, 256);
}

TEST_CASE("arena: neighbours that are free become one gap, whatever the order") {
  for (const std::vector<int>& order : {std::vector<int>{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}}) {
    Arena arena(small);
    void* pieces[3];
    for (void*& piece : pieces) piece = arena.allocate(1024);
    arena.allocate(256);
    for (const int i : order) arena.release(pieces[i], 1024);
    CHECK(arena.allocate(3072) == pieces[0]);
    CHECK(arena.peak_bytes() == 3 * 1024 + 256);
  }
}

TEST_CASE("arena: addresses are aligned, never overlap and repeat step by step") {
  Arena arena(small), other(small);
  const std::vector<size_t> first = addresses_of_a_step(arena, true);
  const size_t peak = arena.peak_bytes();
  CHECK(arena.used_bytes() == 0);
  for (const size_t address : first) CHECK(address % 256 == 0);
  CHECK(addresses_of_a_step(other, false) == first);
  // The first step grew the arena; from the second on it is one gap, and the sequence repeats.
  const std::vector<size_t> second = addresses_of_a_step(arena, true);
  CHECK(addresses_of_a_step(arena, true) == second);
  CHECK(arena.peak_bytes() == peak);
}

TEST_CASE("arena: more than there is ends in an error that says what to do") {
  Arena arena(size_t(4) << 20);
  CHECK_THROWS_WITH_AS(arena.allocate(size_t(5) << 20), doctest::Contains("out of memory"), Error);
  CHECK(arena.used_bytes() == 0);
  CHECK(arena.allocate(1000) != nullptr);
}

TEST_CASE("arena: tensors made inside its scope live there, others in the pool") {
  Arena arena(small);
  Tensor kept;
  {
    const ArenaScope scope(&arena);
    kept = Tensor::zeros({1000}, DType::f32);
    CHECK(arena.used_bytes() == 4096);
    {
      const ArenaScope pool(nullptr);
      const Tensor outside = Tensor::zeros({1000}, DType::f32);
      CHECK(arena.used_bytes() == 4096);
    }
    const Tensor view = kept.view({10, 100}).slice(2, 3);
    kept = Tensor();
    CHECK(arena.used_bytes() == 4096);   // the slice still holds it
  }
  CHECK(arena.used_bytes() == 0);
}

TEST_CASE("memory: poison and guards, in the pool and in an arena") {
  const MemoryDebug before = memory_debug();
  memory_debug() = {.poison = true, .guard = true};
  Arena arena(small);
  for (Arena* where : {static_cast<Arena*>(nullptr), &arena}) {
    const ArenaScope scope(where);
    for (const size_t overrun : {0, 1, 64}) {
      const size_t violations = guard_violations();
      {
        const Storage storage(100, Device{});
        for (size_t i = 0; i < 100; i++) CHECK(static_cast<unsigned char>(storage.data()[i]) == 0xFF);
        std::memset(storage.data(), 0, 100 + overrun);
      }
      CHECK(guard_violations() == violations + overrun);
    }
    CHECK(std::isnan(Tensor::empty({3}, DType::bf16).values()[1]));
  }
  memory_debug() = before;
}
