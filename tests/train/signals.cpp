// signals: the first asks, the second SIGINT does not. Each case runs in a child, whose handlers die with it.
#include "train/signals.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace {

// How a child that runs `body` ends, as wait() tells it; body returns its exit code.
int status_of(int (*body)()) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("signals: TERM, INT and USR1 are remembered") {
  const auto remembers = [](int (*body)()) {
    const int status = status_of(body);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  };
  remembers([] {
    watch_signals();
    return stop_signal();
  });
  remembers([] {
    watch_signals();
    raise(SIGTERM);
    return stop_signal() - SIGTERM;
  });
  remembers([] {
    watch_signals();
    raise(SIGINT);
    return stop_signal() - SIGINT;
  });
  remembers([] {
    watch_signals();
    raise(SIGUSR1);
    return stop_signal() - SIGUSR1;
  });
}

TEST_CASE("signals: the second SIGINT kills, a second SIGTERM does not") {
  const int twice = status_of([] {
    watch_signals();
    raise(SIGINT);
    raise(SIGINT);
    return 0;
  });
  CHECK(WIFSIGNALED(twice));
  CHECK(WTERMSIG(twice) == SIGINT);
  const int patient = status_of([] {
    watch_signals();
    raise(SIGTERM);
    raise(SIGTERM);
    return 0;
  });
  CHECK(WIFEXITED(patient));
}

TEST_CASE("signals: a closed pipe is an error of write") {
  const int status = status_of([] {
    watch_signals();
    int ends[2];
    if (pipe(ends) != 0) return 1;
    close(ends[0]);
    return write(ends[1], "x", 1) == -1 ? 0 : 2;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
