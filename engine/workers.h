// workers.h: a few threads that share independent tasks. Which thread takes which task never changes a result.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

// The calling thread works too, so `Workers(1)` starts none. Inside a task OpenMP runs one thread: the tasks are the parallelism.
class Workers {
 public:
  explicit Workers(int threads);
  ~Workers();
  Workers(const Workers&) = delete;

  // f(0) .. f(tasks - 1), each once; returns when all are done. The first task (by number) that threw has its exception thrown here.
  void run(int64_t tasks, const std::function<void(int64_t)>& f);
  int threads() const { return int(threads_.size()) + 1; }

 private:
  void serve();
  void take_tasks();

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, finished_;
  const std::function<void(int64_t)>* task_ = nullptr;
  int64_t tasks_ = 0, round_ = 0;
  std::atomic<int64_t> next_{0};
  int busy_ = 0;
  bool stopping_ = false;
  std::exception_ptr error_;
  int64_t error_task_ = 0;
};
