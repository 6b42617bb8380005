// workers.cpp: one round of tasks at a time, claimed from a counter.
#include "engine/workers.h"

#include <omp.h>

Workers::Workers(int threads) {
  for (int i = 1; i < threads; i++) threads_.emplace_back([this] { serve(); });
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void Workers::serve() {
  omp_set_num_threads(1);
  int64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    lock.unlock();
    take_tasks();
    lock.lock();
    if (--busy_ == 0) finished_.notify_one();
  }
}

void Workers::take_tasks() {
  for (int64_t i = next_++; i < tasks_; i = next_++) {
    try {
      (*task_)(i);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_ || i < error_task_) {
        error_ = std::current_exception();
        error_task_ = i;
      }
    }
  }
}

void Workers::run(int64_t tasks, const std::function<void(int64_t)>& f) {
  const int outside = omp_get_max_threads();
  omp_set_num_threads(1);
  {
    const std::lock_guard lock(mutex_);
    task_ = &f;
    tasks_ = tasks;
    next_ = 0;
    error_ = nullptr;
    busy_ = int(threads_.size());
    round_++;
  }
  start_.notify_all();
  take_tasks();
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return busy_ == 0; });
  omp_set_num_threads(outside);
  if (error_) std::rethrow_exception(error_);
}
