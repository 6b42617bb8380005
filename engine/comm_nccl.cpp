// comm_nccl.cpp: collectives of GPUs, on a stream beside the compute stream.
//
// The order of a sum is NCCL's own: the same bits run after run for one topology, algorithm and protocol (NCCL_ALGO and NCCL_PROTO fix them), and for
// two ranks those of every other communicator, because a + b = b + a.
#include <nccl.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "engine/comm.h"
#include "engine/device_cuda.h"

namespace {

using Clock = std::chrono::steady_clock;

void nccl_check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess && result != ncclInProgress) fail(Exit::unavailable, "[nccl] ", call, ": ", ncclGetErrorString(result));
}

class Nccl : public Communicator {
 public:
  Nccl(Communicator& host, int device, double timeout) : Communicator(host.rank, host.size), device_(device), timeout_(timeout) {
    ncclUniqueId id{};
    if (rank == 0) nccl_check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    const Tensor bytes = Tensor::zeros({int64_t(sizeof id)}, DType::u8);
    std::memcpy(bytes.raw(), &id, sizeof id);
    host.wait(host.broadcast(bytes, 0, "the id of NCCL"));
    std::memcpy(&id, bytes.raw(), sizeof id);
    cuda_check(cudaSetDevice(device), "cudaSetDevice");
    int least = 0, greatest = 0;
    cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    cuda_check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "cudaStreamCreateWithPriority");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;   // so that nothing is stuck in a call when the time is over
    nccl_check(ncclCommInitRankConfig(&comm_, size, id, rank, &config), "ncclCommInitRankConfig");
    settle("ncclCommInitRankConfig");
    watchdog_ = std::thread([this] { watch(); });
  }

  ~Nccl() override {
    closing_ = true;
    if (watchdog_.joinable()) watchdog_.join();
    if (comm_) ncclCommAbort(comm_);   // all that was waited for has ended; nobody is waited for now
    cudaStreamDestroy(stream_);
  }

  int64_t start(Collective c) override {
    const std::lock_guard lock(mutex_);
    if (!error_.empty()) fail(Exit::unavailable, error_);
    const int64_t ticket = note_queued(c);
    Flight flight{ticket, {}, Clock::now(), c.x};
    cudaEvent_t ready;
    cuda_check(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    cuda_check(cudaEventRecord(ready, compute_stream()), "cudaEventRecord");
    cuda_check(cudaStreamWaitEvent(stream_, ready, 0), "cudaStreamWaitEvent");
    cuda_check(cudaEventDestroy(ready), "cudaEventDestroy");
    note_started(ticket);
    enqueue(c);
    cuda_check(cudaEventCreateWithFlags(&flight.done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    cuda_check(cudaEventRecord(flight.done, stream_), "cudaEventRecord");
    flights_.push_back(flight);
    return ticket;
  }

  // The compute stream waits, not this thread.
  void wait(int64_t ticket) override {
    const std::lock_guard lock(mutex_);
    if (!error_.empty()) fail(Exit::unavailable, error_);
    for (const Flight& flight : flights_)
      if (flight.ticket <= ticket) cuda_check(cudaStreamWaitEvent(compute_stream(), flight.done, 0), "cudaStreamWaitEvent");
  }

 private:
  struct Flight {
    int64_t ticket;
    cudaEvent_t done;
    Clock::time_point since;
    Tensor x;   // lives until it is over
  };

  void enqueue(const Collective& c) {
    const ncclDataType_t number = c.x && c.x.dtype() == DType::f64 ? ncclDouble : ncclFloat;
    nccl_check(ncclGroupStart(), "ncclGroupStart");
    if (c.kind == Collective::all_reduce)
      nccl_check(ncclAllReduce(c.x.raw(), c.x.raw(), size_t(c.x.size()), number, ncclSum, comm_, stream_), "ncclAllReduce");
    for (const Part& part : c.parts) {
      if (part.size() == 0) continue;
      const size_t bytes = size_of(c.x.dtype());
      char* at = c.x.raw() + size_t(part.begin) * bytes;
      if (c.kind == Collective::reduce_scatter)
        nccl_check(ncclReduce(at, at, size_t(part.size()), number, ncclSum, part.owner, comm_, stream_), "ncclReduce");
      else
        nccl_check(ncclBroadcast(at, at, size_t(part.size()) * bytes, ncclChar, part.owner, comm_, stream_), "ncclBroadcast");
    }
    nccl_check(ncclGroupEnd(), "ncclGroupEnd");
    settle(name_of(c.kind));
  }

  // A call that does not block has been taken over when the communicator is no longer busy with it.
  void settle(const char* call) {
    const Clock::time_point start = Clock::now();
    for (ncclResult_t state = ncclInProgress; state == ncclInProgress;) {
      nccl_check(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
      nccl_check(state, call);
      if (std::chrono::duration<double>(Clock::now() - start).count() > timeout_)
        fail(Exit::unavailable, "rank ", rank, " of ", size, ": ", call, " did not end in ", timeout_, " s (run.comm_timeout); ",
             "NCCL does not say who is missing");
      if (state == ncclInProgress) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  void watch() {
    cudaSetDevice(device_);
    while (!closing_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      const std::lock_guard lock(mutex_);
      while (!flights_.empty() && cudaEventQuery(flights_.front().done) == cudaSuccess) {
        note_finished(flights_.front().ticket);
        cudaEventDestroy(flights_.front().done);
        flights_.pop_front();
      }
      ncclResult_t state = ncclSuccess;
      if (!comm_ || flights_.empty()) continue;
      ncclCommGetAsyncError(comm_, &state);
      const bool late = std::chrono::duration<double>(Clock::now() - flights_.front().since).count() > timeout_;
      if (!late && (state == ncclSuccess || state == ncclInProgress)) continue;
      const std::string why = late ? str(" did not end in ", timeout_, " s (run.comm_timeout)") : str(" cannot end: ", ncclGetErrorString(state));
      error_ = str(describe(flights_.front().ticket), why, "; NCCL does not say who is missing");
      ncclCommAbort(comm_);   // ends its kernels, so that the device comes free
      comm_ = nullptr;
    }
  }

  const int device_;
  const double timeout_;
  cudaStream_t stream_ = nullptr;
  ncclComm_t comm_ = nullptr;
  std::mutex mutex_;   // NCCL calls, and what follows
  std::deque<Flight> flights_;
  std::string error_;
  std::atomic<bool> closing_{false};
  std::thread watchdog_;
};

}  // namespace

std::unique_ptr<Communicator> device_communicator(Communicator& host, Device device, double timeout) {
  return std::make_unique<Nccl>(host, device.index, timeout);
}
