// signals.cpp: handlers that only set a flag.
#include "train/signals.h"

#include <atomic>
#include <csignal>

namespace {

std::atomic<int> received{0};
static_assert(std::atomic<int>::is_always_lock_free, "a handler may not wait");

void remember(int signal) { received.store(signal); }

void install(int signal, void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

void watch_signals() {
  received.store(0);
  install(SIGTERM, remember, SA_RESTART);
  install(SIGUSR1, remember, SA_RESTART);
  install(SIGINT, remember, SA_RESTART | SA_RESETHAND);  // the second finds the default again, which is death
  install(SIGPIPE, SIG_IGN, 0);
  install(SIGXFSZ, SIG_IGN, 0);
}

int stop_signal() { return received.load(); }
