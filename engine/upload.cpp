// upload.cpp: what is sent lies packed, each tensor at a multiple of 256 bytes.
#include "engine/upload.h"

#include <cstring>

#include "engine/capture_rules.h"
#include "engine/check.h"

namespace {

size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

Upload::Upload(Device device) : device_(device), lane_(make_upload_lane(device)) {}

void Upload::send(const std::vector<Tensor>& tensors) {
  forbid_in_capture(device_, "an upload");
  sent_.clear();
  size_t bytes = 0;
  for (const Tensor& x : tensors) {
    check(x.device().kind == Device::cpu, "[upload] a tensor of the host expected, given one on ", x.device());
    sent_.push_back(x.bytes());
    bytes += padded(x.bytes());
  }
  char* room = lane_->room(bytes);
  for (const Tensor& x : tensors) {
    std::memcpy(room, x.raw(), x.bytes());
    room += padded(x.bytes());
  }
  lane_->start(bytes);
}

void Upload::receive(const std::vector<Tensor>& to) {
  forbid_in_capture(device_, "an upload");
  std::vector<size_t> asked;
  for (const Tensor& x : to) asked.push_back(x.device() == device_ ? x.bytes() : 0);
  check(!sent_.empty() && asked == sent_, "[upload] tensors on ", device_, " of the sizes of those sent expected");
  lane_->arrive();
  size_t offset = 0;
  for (const Tensor& x : to) {
    lane_->take(x, offset);
    offset += padded(x.bytes());
  }
  lane_->emptied();
  sent_.clear();
}
