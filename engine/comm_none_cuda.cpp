// comm_none_cuda.cpp: a build with CUDA that found no NCCL.
#include "engine/check.h"
#include "engine/comm.h"

std::unique_ptr<Communicator> device_communicator(Communicator&, Device, double) {
  fail(Exit::config, "several ranks on GPUs need NCCL, which was not there when this was built: install libnccl-dev and build again");
}
