// run_tables: what a step pays for its rows and events, and what a reader waits.
#include <filesystem>

#include <benchmark/benchmark.h>

#include "train/csv_read.h"
#include "train/csv_table.h"
#include "train/event_file.h"

namespace fs = std::filesystem;

namespace {

std::vector<std::string> columns(int count) {
  std::vector<std::string> names{"step"};
  for (int i = 1; i < count; i++) names.push_back("layers.0.blocks.0.attn." + std::to_string(i));
  return names;
}

std::vector<float> values(int count) {
  std::vector<float> numbers;
  for (int i = 0; i < count; i++) numbers.push_back(3.891f / float(i + 1.7));
  return numbers;
}

struct Scratch {
  fs::path path = fs::temp_directory_path() / "lipsgrad-bench-tables";
  Scratch() { fs::remove_all(path), fs::create_directories(path); }
  ~Scratch() { fs::remove_all(path); }
};

void csv_row_of_300(benchmark::State& state) {
  const Scratch scratch;
  CsvTable table = CsvTable::create(scratch.path / "t.csv", columns(300));
  const std::vector<float> row = values(299);
  int step = 0;
  for (auto _ : state) table.add(step++).add_all(row).end_row();
}
BENCHMARK(csv_row_of_300)->Unit(benchmark::kMicrosecond);

void event_of_300_scalars(benchmark::State& state) {
  const Scratch scratch;
  EventFile file(scratch.path);
  const std::vector<std::string> tags = columns(300);
  const std::vector<float> row = values(300);
  std::vector<Scalar> scalars;
  for (std::size_t i = 0; i < tags.size(); i++) scalars.push_back({tags[i], row[i]});
  int step = 0;
  for (auto _ : state) file.write(step++, scalars);
}
BENCHMARK(event_of_300_scalars)->Unit(benchmark::kMicrosecond);

void csv_read_20000_rows_of_300(benchmark::State& state) {
  const Scratch scratch;
  CsvTable table = CsvTable::create(scratch.path / "t.csv", columns(300));
  const std::vector<float> row = values(299);
  for (int step = 0; step < 20000; step++) table.add(step).add_all(row).end_row();
  for (auto _ : state) benchmark::DoNotOptimize(read_csv(scratch.path / "t.csv").rows);
}
BENCHMARK(csv_read_20000_rows_of_300)->Unit(benchmark::kMillisecond)->Iterations(2);

}  // namespace

BENCHMARK_MAIN();
