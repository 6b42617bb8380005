// environment.cpp: where and with what a run was made (run_folder.h).
#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "engine/durable_file.h"
#include "train/build_info.h"
#include "train/run_folder.h"

using nlohmann::json;

namespace {

std::string cpu_model() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return "unknown";
}

int usable_cores() {
  cpu_set_t set;
  const bool known = ::sched_getaffinity(0, sizeof set, &set) == 0;
  return known ? CPU_COUNT(&set) : static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts;
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

json describe_session(std::span<const char* const> command_line, std::int64_t first_step) {
  utsname system{};
  ::uname(&system);
  return {
      {"start_time", utc_now()},
      {"first_step", first_step},
      {"command_line", std::vector<std::string>(command_line.begin(), command_line.end())},
      {"host", system.nodename},
      {"system", std::string(system.sysname) + " " + system.release + " " + system.machine},
      {"cpu", cpu_model()},
      {"cores", usable_cores()},
      {"memory_bytes", static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE)},
      {"version", build_info::version},
      {"compiler", build_info::compiler},
      {"build_type", build_info::build_type},
      {"build_flags", build_info::flags},
  };
}

void add_session(const RunPaths& paths, const json& session) {
  json environment = json::object();
  if (std::filesystem::exists(paths.environment())) {
    environment = json::parse(read_file(paths.environment()), nullptr, /*allow_exceptions=*/false);
  }
  if (!environment.is_object()) environment = json::object();   // a damaged note about the past does not stop a run
  json& sessions = environment["sessions"];
  if (!sessions.is_array()) sessions = json::array();
  sessions.push_back(session);
  const std::string text = environment.dump(1, ' ', false, json::error_handler_t::replace);
  write_file_atomically(paths.environment(), text + "\n");
}
