// The include arrows: every room includes only what lies below it, and so does every file of the engine.
#include <doctest/doctest.h>

#include <map>
#include <set>

#include "house.h"

namespace {

using std::string;

// third_party <- engine <- layers <- models <- train, data -> engine, train -> data, tests and bench -> all.
const std::map<string, std::set<string>> may_include = {
    {"engine", {"engine"}},
    {"layers", {"engine", "layers"}},
    {"models", {"engine", "layers", "models"}},
    {"data", {"engine", "data"}},
    {"train", {"engine", "layers", "models", "data", "train"}},
    {"tests", {"engine", "layers", "models", "data", "train", "tests"}},
    {"bench", {"engine", "layers", "models", "data", "train", "bench"}},
};

// Inside the engine, lowest first: a file includes only its own floor and those below. A new file gets its place here.
const std::vector<std::set<string>> engine_floors = {
    {"check", "shape", "dtype", "random", "host_device", "math", "box", "small_gemm", "pair_sums", "nearest", "rounding", "norm_proof", "soft_cap"},
    {"device", "capture_rules", "memory", "tensor", "upload", "workers", "durable_file", "safetensors"},
    {"autograd", "between_nodes", "profile", "kernel", "fibers", "mma", "team", "map", "convert", "column_sums", "blas", "comm",
     "gemm_mma", "launch_table", "symmetric_products", "flat", "muon_step", "matrix_batch", "spectral_scale", "proved_norms", "weight_caps",
     "power_iteration", "measures"},
    {"ops"},
    {"capture"},
};

string room_of(const string& path) { return path.substr(0, path.find('/')); }

// "engine/blas_cpu.cpp" stands on the floor of "blas", everything in engine/ops/ on that of "ops". -1: no place yet.
int engine_floor(const string& path) {
  string name = path.substr(path.find('/') + 1);
  name = name.substr(0, name.find_first_of("/."));
  const auto floor_of = [](const string& name) {
    for (size_t floor = 0; floor < engine_floors.size(); floor++)
      if (engine_floors[floor].count(name)) return int(floor);
    return -1;
  };
  if (const int floor = floor_of(name); floor >= 0) return floor;
  return floor_of(name.substr(0, name.find('_')));
}

// "" for a line that is no include; otherwise what stands between the quotes or brackets, behind the opening one.
string included_by(const string& line) {
  const size_t hash = line.find_first_not_of(" \t");
  if (hash == line.npos || line[hash] != '#') return "";
  const size_t word = line.find_first_not_of(" \t", hash + 1);
  if (word == line.npos || line.compare(word, 7, "include") != 0) return "";
  const size_t open = line.find_first_of("\"<", word);
  if (open == line.npos) return "";
  const size_t close = line.find_first_of("\">", open + 1);
  return close == line.npos ? "" : line.substr(open, close - open);
}

// The project's file that an include means, as the compiler looks for it: beside the file first, then from the root.
string resolved(const string& path, const string& name, const std::set<string>& project) {
  namespace fs = std::filesystem;
  const string beside = (fs::path(path).parent_path() / name).lexically_normal().generic_string();
  if (project.count(beside)) return beside;
  const string from_root = fs::path(name).lexically_normal().generic_string();
  return project.count(from_root) ? from_root : "";
}

// Headers that belong to one device or one launcher, and the endings of the files that may open them.
const std::vector<std::pair<string, string>> guarded_headers = {
    {"cuda", "_cuda"}, {"cublas", "_cuda"}, {"cooperative_groups", "_cuda"},
    {"nvtx3", "_cuda"}, {"nccl", "_nccl"},  {"mpi.h", "_mpi"},
};

string guarded_header_fault(const string& path, const string& name) {
  for (const auto& [header, home] : guarded_headers) {
    if (!name.starts_with(header) || contains(path, home + ".")) continue;
    if (path == "engine/kernel.h" && home == "_cuda") continue;
    if (path.ends_with("_nccl.cpp") && home == "_cuda") continue;      // NCCL speaks of CUDA streams
    return "<" + name + "> belongs in a *" + home + " file";
  }
  return "";
}

string arrow_fault(const string& path, const string& target) {
  const auto rule = may_include.find(room_of(path));
  if (rule == may_include.end()) return "";
  if (!rule->second.count(room_of(target))) return room_of(path) + " may not include " + target;
  if (room_of(path) != "engine") return "";
  const int here = engine_floor(path), there = engine_floor(target);
  if (here < 0) return "has no place in the engine yet: give it one in tests/house/includes.cpp";
  if (there > here) return "stands below " + target + " and may not include it";
  return "";
}

Faults include_faults(const Source& source, const std::set<string>& project) {
  Faults faults;
  const auto lines = lines_of(without_comments(source.text));
  for (size_t i = 0; i < lines.size(); i++) {
    const string include = included_by(lines[i]);
    if (include.empty()) continue;
    const string name = include.substr(1), target = resolved(source.path, name, project);
    string fault = target.empty() ? guarded_header_fault(source.path, name) : arrow_fault(source.path, target);
    if (target.empty() && fault.empty() && include[0] == '"') fault = "\"" + name + "\" is no file of the project";
    if (!fault.empty()) faults.push_back(fault_at(source, i + 1, fault));
  }
  return faults;
}

}  // namespace

TEST_CASE("house: include arrows point down only") {
  const auto sources = project_files({".h", ".cpp", ".cu"});
  std::set<string> project;
  for (const auto& source : sources) project.insert(source.path);
  REQUIRE(project.count("engine/check.h"));
  Faults faults;
  for (const auto& source : sources)
    for (const auto& fault : include_faults(source, project)) faults.push_back(fault);
  INFO(listed(faults));
  CHECK(faults.empty());
}

TEST_CASE("house: the arrow test sees what it should") {
  const std::set<string> project = {"engine/check.h", "engine/tensor.h", "engine/blas_cpu.cpp", "engine/autograd.h",
                                    "engine/ops.h", "engine/ops/gelu.cu", "engine/capture.h", "layers/linear.h",
                                    "models/swin.h", "data/loader.h", "train/ledger.h", "engine/novel.h"};
  const auto faults = [&](const string& path, const string& text) {
    return include_faults({path, text}, project).size();
  };

  SUBCASE("between rooms") {
    CHECK(faults("layers/linear.h", "#include \"engine/ops.h\"\n#include <vector>\n") == 0);
    CHECK(faults("train/ledger.h", "#include \"data/loader.h\"\n#include \"models/swin.h\"\n") == 0);
    CHECK(faults("tests/train/ledger.cpp", "#include \"train/ledger.h\"\n") == 0);
    CHECK(faults("engine/ops/gelu.cu", "#include \"layers/linear.h\"\n") == 1);
    CHECK(faults("layers/linear.h", "#include <models/swin.h>\n") == 1);
    CHECK(faults("layers/linear.h", "  #  include \"../models/swin.h\"\n") == 1);
    CHECK(faults("data/loader.h", "#include \"layers/linear.h\"\n") == 1);
    CHECK(faults("models/swin.h", "#include \"data/loader.h\"\n#include \"train/ledger.h\"\n") == 2);
  }
  SUBCASE("inside the engine") {
    CHECK(faults("engine/ops/gelu.cu", "#include \"../autograd.h\"\n") == 0);
    CHECK(faults("engine/blas_cpu.cpp", "#include \"tensor.h\"\n") == 0);
    CHECK(faults("engine/blas_cpu.cpp", "#include \"engine/ops.h\"\n") == 1);
    CHECK(faults("engine/tensor.h", "#include \"engine/autograd.h\"\n") == 1);
    CHECK(faults("engine/check.h", "#include \"engine/tensor.h\"\n") == 1);
    CHECK(faults("engine/autograd.h", "#include \"engine/capture.h\"\n") == 1);
    CHECK(faults("engine/novel.h", "#include \"engine/check.h\"\n") == 1);
  }
  SUBCASE("what is not an include, or not there") {
    CHECK(faults("layers/linear.h", "// #include \"train/ledger.h\"\n/*\n#include \"train/ledger.h\"\n*/\n") == 0);
    CHECK(faults("layers/linear.h", "#include \"layers/gone.h\"\n") == 1);
  }
  SUBCASE("headers of a device") {
    CHECK(faults("engine/kernel.h", "#include <cuda_runtime.h>\n") == 0);
    CHECK(faults("engine/blas_cuda.cpp", "#include <cublasLt.h>\n") == 0);
    CHECK(faults("engine/comm_nccl.cpp", "#include <nccl.h>\n#include <cuda_runtime.h>\n") == 0);
    CHECK(faults("engine/tensor.h", "#include <cuda_runtime.h>\n") == 1);
    CHECK(faults("engine/kernel.h", "#include <nccl.h>\n") == 1);
    CHECK(faults("layers/linear.h", "#include <cublasLt.h>\n") == 1);
    CHECK(faults("engine/comm_mpi.cpp", "#include <mpi.h>\n") == 0);
    CHECK(faults("train/main.cpp", "#include <mpi.h>\n") == 1);
  }
}
