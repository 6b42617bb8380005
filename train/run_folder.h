// run_folder.h: where the files of a run lie, and who may write them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

struct RunPaths {
  std::filesystem::path root;

  std::filesystem::path recipe() const { return root / "recipe.toml"; }             // what was run, fully resolved
  std::filesystem::path environment() const { return root / "environment.json"; }   // where and with what
  std::filesystem::path ledger() const { return root / "ledger.json"; }             // what the layers are
  std::filesystem::path steps() const { return root / "steps.csv"; }                // one row a step
  std::filesystem::path lipschitz() const { return root / "lipschitz.csv"; }
  std::filesystem::path certified() const { return root / "certified.csv"; }        // one row at some steps and at each evaluation
  std::filesystem::path measured() const { return root / "measured.csv"; }          // one row an evaluation
  std::filesystem::path norms() const { return root / "norms.csv"; }
  std::filesystem::path entropy() const { return root / "entropy.csv"; }
  std::filesystem::path entropy_floor() const { return root / "entropy_floor.csv"; }
  std::filesystem::path pnac() const { return root / "pnac.csv"; }
  std::filesystem::path epochs() const { return root / "epochs.csv"; }              // one row an evaluation
  std::filesystem::path events() const { return root / "events.csv"; }              // what happened beside the plan
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path checkpoint(std::int64_t step) const;                        // checkpoints/step-00001234
  std::filesystem::path report() const { return root / "report.html"; }
  std::filesystem::path flight_recorder() const { return root / "flight_recorder.json"; }

  bool holds_run() const;
  std::vector<std::int64_t> sealed_checkpoints() const;   // steps of the complete ones, oldest first
};

// The folder of a run that this process writes. No other process can open it until this object is gone.
class RunFolder {
 public:
  static RunFolder create(const std::filesystem::path& root);   // an Error if there is a run already
  static RunFolder resume(const std::filesystem::path& root);   // an Error if there is none
  static RunFolder of_other_rank(const std::filesystem::path& root);   // that another process writes, for this one to read
  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const RunPaths paths;

 private:
  RunFolder(const std::filesystem::path& root, int lock);
  int lock_;
};

// This machine, this binary, this command: one session of a run. The caller adds what it alone knows.
nlohmann::json describe_session(std::span<const char* const> command_line, std::int64_t first_step);

// environment.json: {"sessions": [...]}, one more with every resume.
void add_session(const RunPaths& paths, const nlohmann::json& session);
