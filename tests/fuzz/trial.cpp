// trial.cpp: fork; the child says through shared memory how far it came.
#include "trial.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>

// The address sanitizer's own, whose header the compiler comes without.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t), void (*)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void*);

namespace {

struct Shared {
  std::atomic<uint64_t> number;
  char why[512];
};
Shared* shared() {
  static void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return static_cast<Shared*>(memory);
}

[[noreturn]] void leave(const char* why) {
  std::snprintf(shared()->why, sizeof shared()->why, "%s", why);
  _exit(1);
}

std::atomic<int64_t> allocated = 0;
std::atomic<bool> limited = false;

void note_allocation(const volatile void* p, size_t) {
  const int64_t now = allocated += int64_t(__sanitizer_get_allocated_size(p));
  if (limited && now > most_memory) leave("more memory than any input may take");
}
void note_release(const volatile void* p) {
  if (p) allocated -= int64_t(__sanitizer_get_allocated_size(p));
}

void run_one(const FuzzTarget& target, Input input) {
  try {
    target.run(input);
  } catch (const std::exception& error) {
    leave(error.what());
  }
}

void limit_time(int seconds) {
  const itimerval timer{{}, {seconds, 0}};
  setitimer(ITIMER_PROF, &timer, nullptr);
}

// What an input leaves behind twice it leaves behind each time.
void run_limited(const FuzzTarget& target, Input input) {
  limit_time(most_seconds);
  int64_t before = allocated;
  for (int tries = 0; tries < 3; tries++) {
    run_one(target, input);
    if (allocated <= before) break;
    if (tries == 2) leave("memory that is not given back");
    before = allocated;
  }
  limit_time(0);
}

[[noreturn]] void run_child(const FuzzTarget& target, uint64_t begin, uint64_t end, const std::function<Bytes(uint64_t)>& input, bool quiet) {
  if (quiet) dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
  __sanitizer_install_malloc_and_free_hooks(note_allocation, note_release);
  for (uint64_t number = begin; number < end; number++) {
    shared()->number = number;
    // No byte more than the input has, so that the sanitizer sees who reads beyond.
    const Bytes made = input(number), bytes(made.begin(), made.end());
    limited = true;
    run_limited(target, bytes);
    limited = false;
  }
  shared()->number = end;
  _exit(0);
}

}  // namespace

Trial try_inputs(const FuzzTarget& target, uint64_t begin, uint64_t end, const std::function<Bytes(uint64_t)>& input, bool quiet) {
  shared()->number = begin;
  shared()->why[0] = 0;
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) fail(Exit::internal, "cannot start a process: ", std::strerror(errno));
  if (child == 0) run_child(target, begin, end, input, quiet);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  Trial trial{shared()->number, shared()->why};
  if (WIFSIGNALED(status)) trial.why = WTERMSIG(status) == SIGPROF ? str("more than ", most_seconds, " s") : str("signal ", WTERMSIG(status));
  else if (WEXITSTATUS(status) != 0 && trial.why.empty()) trial.why = "a sanitizer's report";
  return trial;
}
