// upload_fibers.cpp: uploads without a GPU. The copy happens as late as it may, so whoever writes into the room too early is found out.
#include <cstring>

#include "engine/upload.h"

namespace {

struct HostLane : UploadLane {
  std::vector<char> locked, landing;
  char* room(size_t bytes) override {
    locked.resize(bytes);
    return locked.data();
  }
  void start(size_t) override {}
  void arrive() override { landing = locked; }
  void take(const Tensor& to, size_t offset) override { std::memcpy(to.raw(), landing.data() + offset, to.bytes()); }
  void emptied() override { std::fill(landing.begin(), landing.end(), char(0xFF)); }
};

}  // namespace

std::unique_ptr<UploadLane> make_upload_lane(Device) { return std::make_unique<HostLane>(); }
