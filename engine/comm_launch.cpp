// comm_launch.cpp: reads what torchrun, mpirun and srun leave in the environment.
#include "engine/comm_launch.h"

#include <charconv>
#include <cstdlib>

#include "engine/check.h"

namespace {

using Variable = std::function<std::optional<std::string>(const char*)>;

int number(const Variable& variable, const char* name, std::optional<int> otherwise = {}) {
  const std::optional<std::string> text = variable(name);
  if (!text && otherwise) return *otherwise;
  int value = 0;
  const char* end = text ? text->data() + text->size() : nullptr;
  if (!text || std::from_chars(text->data(), end, value).ptr != end || value < 0)
    fail(Exit::usage, "the environment's ", name, " must be a number, it is ", text ? "\"" + *text + "\"" : "not set");
  return value;
}

// An interactive shell of Slurm and a batch script outside srun carry the variables of a job, not of a rank.
bool is_step(const Variable& variable) {
  const std::string job = variable("SLURM_JOB_NAME").value_or("");
  return variable("SLURM_PROCID") && variable("SLURM_NTASKS") && variable("SLURM_STEP_ID") && job != "bash" && job != "interactive";
}

int port_of_job(const std::string& job) {
  const std::string digits = job.size() > 4 ? job.substr(job.size() - 4) : job;
  return digits.empty() ? 12910 : 15000 + std::atoi(digits.c_str());
}

}  // namespace

std::string first_host(const std::string& nodelist) {
  const size_t open = nodelist.find('['), comma = nodelist.find(',');
  if (open == nodelist.npos || comma < open) return nodelist.substr(0, comma);
  const size_t close = nodelist.find(']', open), end = nodelist.find_first_of("-,]", open);
  const size_t behind = nodelist.find(',', close);
  return nodelist.substr(0, open) + nodelist.substr(open + 1, end - open - 1) + nodelist.substr(close + 1, behind - close - 1);
}

Launch launch_of(const Variable& variable) {
  Launch launch;
  if (variable("RANK") && variable("WORLD_SIZE")) {
    launch = {"torchrun", number(variable, "RANK"), number(variable, "WORLD_SIZE"), number(variable, "LOCAL_RANK", 0)};
  } else if (variable("OMPI_COMM_WORLD_SIZE")) {
    launch = {"mpirun", number(variable, "OMPI_COMM_WORLD_RANK"), number(variable, "OMPI_COMM_WORLD_SIZE"), number(variable, "OMPI_COMM_WORLD_LOCAL_RANK", 0)};
  } else if (is_step(variable)) {
    launch = {"srun", number(variable, "SLURM_PROCID"), number(variable, "SLURM_NTASKS"), number(variable, "SLURM_LOCALID", 0)};
  }
  if (launch.size < 1 || launch.rank >= launch.size)
    fail(Exit::usage, launch.by, " says rank ", launch.rank, " of ", launch.size, ": ranks count from 0");
  if (launch.size == 1) return {};
  if (launch.by == "mpirun") return launch;
  launch.address = variable("MASTER_ADDR").value_or("");
  launch.port = number(variable, "MASTER_PORT", 0);
  if (launch.by == "srun") {
    if (launch.address.empty()) launch.address = first_host(variable("SLURM_STEP_NODELIST").value_or(variable("SLURM_JOB_NODELIST").value_or("")));
    if (launch.port == 0) launch.port = port_of_job(variable("SLURM_JOB_ID").value_or(""));
  }
  if (launch.address.empty() || launch.port == 0)
    fail(Exit::usage, launch.by, " gave rank ", launch.rank, " of ", launch.size, " but no place to meet: set MASTER_ADDR and MASTER_PORT");
  // torchrun's own store may already listen there.
  if (variable("TORCHELASTIC_USE_AGENT_STORE") == "True") launch.port += 1 + number(variable, "TORCHELASTIC_RESTART_COUNT", 0);
  return launch;
}

Launch launch_of_environment() {
  return launch_of([](const char* name) -> std::optional<std::string> {
    const char* text = std::getenv(name);
    return text ? std::optional<std::string>(text) : std::nullopt;
  });
}

std::unique_ptr<Communicator> connect_ranks(const Launch& launch, double timeout) {
  if (launch.size == 1) return solo_communicator();
  if (launch.by != "mpirun") return tcp_communicator(launch.rank, launch.size, launch.address, launch.port, timeout);
#ifdef LIPSGRAD_MPI
  return mpi_communicator(timeout);
#else
  fail(Exit::unavailable, "mpirun started this binary, which was built without MPI: install libopenmpi-dev and build again, or give each process ",
       "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT");
#endif
}
