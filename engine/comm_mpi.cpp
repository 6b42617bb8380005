// comm_mpi.cpp: ranks that mpirun started, over Open MPI on host memory.
#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "engine/comm_host.h"

namespace {

// MPI itself does not say that a peer has died, so the processes of this machine are watched by their numbers.
class Mpi : public Messenger {
 public:
  Mpi(int rank, int size, std::vector<pid_t> processes) : Messenger(rank, size), processes_(std::move(processes)) {}

  void close() override { MPI_Finalize(); }

  void trade(const std::vector<Message>& out, const std::vector<Message>& in, Clock::time_point deadline) override {
    constexpr size_t largest = size_t(1) << 30;   // MPI counts in int
    std::vector<MPI_Request> requests;
    std::vector<int> peers;   // of each request
    for (const bool receives : {true, false})
      for (const Message& m : receives ? in : out)
        for (size_t begin = 0; begin < m.bytes; begin += largest) {
          MPI_Request request;
          const int count = int(std::min(largest, m.bytes - begin));
          if (receives) MPI_Irecv(m.data + begin, count, MPI_CHAR, m.peer, 0, MPI_COMM_WORLD, &request);
          else MPI_Isend(m.data + begin, count, MPI_CHAR, m.peer, 0, MPI_COMM_WORLD, &request);
          requests.push_back(request);
          peers.push_back(m.peer);
        }
    auto pause = std::chrono::microseconds(1);
    Clock::time_point look = Clock::now() + std::chrono::milliseconds(20);
    for (int done = 0; true;) {
      MPI_Testall(int(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
      if (done) return;
      const Clock::time_point now = Clock::now();
      if (now > look) {
        look = now + std::chrono::milliseconds(20);
        const Missing missing = missing_of(requests, peers);
        if (!missing.gone.empty() || stopping || now > deadline) throw missing;
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::microseconds(200));
    }
  }

 private:
  Missing missing_of(std::vector<MPI_Request>& requests, const std::vector<int>& peers) {
    Missing missing;
    for (size_t i = 0; i < requests.size(); i++) {
      int done = 0;
      MPI_Request_get_status(requests[i], &done, MPI_STATUS_IGNORE);
      if (done) continue;
      const pid_t process = processes_[peers[i]];
      std::vector<int>& list = process > 0 && kill(process, 0) != 0 ? missing.gone : missing.late;
      if (std::find(list.begin(), list.end(), peers[i]) == list.end()) list.push_back(peers[i]);
    }
    return missing;
  }

  const std::vector<pid_t> processes_;   // [rank]; 0 on another machine
};

std::unique_ptr<Messenger> connect() {
  int level = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS) fail(Exit::unavailable, "MPI could not be started");
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm here;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &here);
  int local_size = 1;
  MPI_Comm_size(here, &local_size);
  const int mine[2] = {rank, int(getpid())};
  std::vector<int> pairs(2 * local_size);
  MPI_Allgather(mine, 2, MPI_INT, pairs.data(), 2, MPI_INT, here);
  MPI_Comm_free(&here);
  std::vector<pid_t> processes(size);
  for (int i = 0; i < local_size; i++) processes[pairs[2 * i]] = pid_t(pairs[2 * i + 1]);
  return std::make_unique<Mpi>(rank, size, std::move(processes));
}

int world(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

}  // namespace

std::unique_ptr<Communicator> mpi_communicator(double timeout) {
  const int rank = world("OMPI_COMM_WORLD_RANK", 0), size = world("OMPI_COMM_WORLD_SIZE", 1);
  return std::make_unique<HostCommunicator>(rank, size, timeout, connect);
}
