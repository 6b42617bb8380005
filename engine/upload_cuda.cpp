// upload_cuda.cpp: uploads by a stream of their own and two events: one says what has arrived, the other that it was taken.
#include "engine/device_cuda.h"
#include "engine/upload.h"

namespace {

struct CudaLane : UploadLane {
  explicit CudaLane(Device device) : device(device) {
    enter();
    cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    for (cudaEvent_t* event : {&arrived, &taken}) cuda_check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
  }

  ~CudaLane() override {
    cudaStreamSynchronize(stream);
    release();
    for (const cudaEvent_t event : {arrived, taken}) cudaEventDestroy(event);
    cudaStreamDestroy(stream);
  }

  char* room(size_t bytes) override {
    enter();
    cuda_check(cudaEventSynchronize(arrived), "an upload");
    if (bytes > capacity) {
      cuda_check(cudaEventSynchronize(taken), "an upload");
      release();
      cuda_check(cudaHostAlloc(&locked, bytes, cudaHostAllocDefault), "cudaHostAlloc");
      cuda_check(cudaMalloc(&landing, bytes), "cudaMalloc");
      capacity = bytes;
    }
    return static_cast<char*>(locked);
  }

  void start(size_t bytes) override {
    cuda_check(cudaStreamWaitEvent(stream, taken), "cudaStreamWaitEvent");
    cuda_check(cudaMemcpyAsync(landing, locked, bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
    cuda_check(cudaEventRecord(arrived, stream), "cudaEventRecord");
  }

  void arrive() override { cuda_check(cudaStreamWaitEvent(compute_stream(), arrived), "cudaStreamWaitEvent"); }

  void take(const Tensor& to, size_t offset) override { copy_bytes(to.raw(), device, static_cast<char*>(landing) + offset, device, to.bytes()); }

  void emptied() override { cuda_check(cudaEventRecord(taken, compute_stream()), "cudaEventRecord"); }

 private:
  void enter() { cuda_check(cudaSetDevice(device.index), "cudaSetDevice"); }
  void release() {
    cudaFreeHost(locked);
    cudaFree(landing);
    locked = landing = nullptr;
    capacity = 0;
  }

  const Device device;
  cudaStream_t stream = nullptr;
  cudaEvent_t arrived = nullptr, taken = nullptr;
  void *locked = nullptr, *landing = nullptr;
  size_t capacity = 0;
};

}  // namespace

std::unique_ptr<UploadLane> make_upload_lane(Device device) { return std::make_unique<CudaLane>(device); }
