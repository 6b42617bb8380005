// upload.h: tensors on their way to a GPU beside its computation: packed into page-locked memory, carried by a stream of their own to a landing
// place, and taken from there in the order of the computation.
#pragma once
#include <memory>
#include <vector>

#include "engine/tensor.h"

// What a device has for it (upload_cuda.cpp, upload_fibers.cpp).
struct UploadLane {
  virtual ~UploadLane() = default;
  virtual char* room(size_t bytes) = 0;       // for the host to write to; waits until what was sent before has left it
  virtual void start(size_t bytes) = 0;       // the copy from there, once the landing place has been emptied
  virtual void arrive() = 0;                  // the compute stream goes on when the copy is there
  virtual void take(const Tensor& to, size_t offset) = 0;
  virtual void emptied() = 0;                 // the landing place, when the compute stream comes to this point
};
std::unique_ptr<UploadLane> make_upload_lane(Device device);

class Upload {
 public:
  explicit Upload(Device device);
  // Starts copying tensors of the host. They may change or go as soon as it returns. What was sent before and not received is forgotten.
  void send(const std::vector<Tensor>& tensors);
  // Tensors of the device, of the sizes of those sent, take their numbers.
  void receive(const std::vector<Tensor>& to);

 private:
  const Device device_;
  std::vector<size_t> sent_;   // bytes of each
  std::unique_ptr<UploadLane> lane_;
};
