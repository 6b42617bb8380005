// comm_launch.h: which rank this process is, as the launcher's environment says.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/comm.h"

struct Launch {
  std::string by;        // mpirun, srun, torchrun; empty: a single process
  int rank = 0, size = 1, local_rank = 0;
  std::string address;   // where rank 0 can be met; empty: under mpirun, which connects its ranks itself
  int port = 0;
};

// RANK, WORLD_SIZE, LOCAL_RANK (torchrun), else OMPI_COMM_WORLD_* (mpirun), else SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID inside a step of srun.
// The meeting place is MASTER_ADDR:MASTER_PORT; under srun without them the first host of SLURM_STEP_NODELIST, at 15000 + the last four digits of the
// job's number. Error(Exit::usage) for a rank outside the size, and for torchrun without a meeting place.
Launch launch_of(const std::function<std::optional<std::string>(const char*)>& variable);
Launch launch_of_environment();
std::string first_host(const std::string& nodelist);   // "gpu[01-03,07],login" -> "gpu01"

// What connects the ranks of a launch. Error(Exit::unavailable) if they do not all come in `timeout` seconds, or if mpirun started a binary without MPI.
std::unique_ptr<Communicator> connect_ranks(const Launch& launch, double timeout);
