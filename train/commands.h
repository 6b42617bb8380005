// commands.h: the subcommands of the binary: what each is given, and the function that does it.
#pragma once
#include <string>
#include <vector>

#include "train/inspect.h"

// RECIPE is everywhere a recipe file or a preset's name; `set` holds its SECTION.KEY=VALUE overrides.
// Each function returns the exit code, prints its result on stdout, and throws Error for what it refuses.

struct TrainOptions {
  std::string recipe;  // empty with resume: the run folder has it
  std::vector<std::string> set;
  std::string run;  // folder; runs/NAME of the recipe unless given
  bool resume = false;
};
int run_train(const TrainOptions& options);

struct EvalOptions {
  std::string target;   // a run folder, or a recipe
  std::string weights;  // safetensors; the newest checkpoint of a run unless given
  std::vector<std::string> set;
  bool ema = false;  // the averaged weights of the checkpoint
  bool json = false;
  bool certify = false;  // how far each image may be changed without changing its class
  std::string radii = "36/255,72/255,108/255,1";  // certify: l2 lengths, pixels in [0, 1]
  int attack_steps = 40;      // certify: of an attack on the first attack_images, within each radius
  int attack_images = 1000;
};
int run_eval(const EvalOptions& options);
int run_certify(const EvalOptions& options);   // eval --certify

struct PredictOptions {
  std::vector<std::string> images;
  std::string target;   // a run folder, or a recipe
  std::string weights;  // as in EvalOptions
  std::vector<std::string> set;
  int top = 5;
};
int run_predict(const PredictOptions& options);

struct InspectCommand {
  std::string run;
  InspectOptions show;
};
int run_inspect(const InspectCommand& options);

struct ReportOptions {
  std::vector<std::string> runs;
  std::string output;   // report.html in the first run's folder unless given
  std::string figures;  // a folder for figures, besides the page
};
int run_report(const ReportOptions& options);

struct SummaryOptions {
  std::string recipe;
  std::vector<std::string> set;
  bool tree = false;  // the bound as a tree instead of the list of layers
  bool json = false;
};
int run_summary(const SummaryOptions& options);

struct ForwardOptions {
  std::string recipe;
  std::vector<std::string> set;  // --dtype and --device are in here, as run.dtype and run.device
  std::string weights, input, output;
  bool train = false;    // training statistics, all random parts off
  bool partial = false;  // names may be missing or left over
  int steps = 0;         // optimizer steps on the batch
};
int run_forward(const ForwardOptions& options);

struct DataPackOptions {
  std::string source;  // the name of a known dataset, or a folder of one folder per class
  std::string folder;  // where the tar shards go
  int shard_images = 10000;
  std::string restart_intervals;  // a number of MCUs, or "auto"; empty: files stay as they are
};
int run_data_pack(const DataPackOptions& options);

struct DataVerifyOptions {
  std::string folder;
  int regions = 0;  // of each image, compared with the whole
};
int run_data_verify(const DataVerifyOptions& options);

struct DataFetchOptions {
  std::string name;
  std::string folder;  // datasets/NAME unless given
};
int run_data_fetch(const DataFetchOptions& options);

struct DataShowOptions {
  std::string source;  // images, or a recipe, whose augmentation is shown
  std::vector<std::string> set;
  std::string output;  // PNG
  int images = 32, epoch = 0;
};
int run_data_show(const DataShowOptions& options);

struct ConvertOptions {
  std::string input, output;  // safetensors; with fuse the input is a run folder or a recipe
  std::string to;             // whose names the output has: "timm" or "swin"
  bool fuse = false;          // instead: a model for inference, its recipe beside the output
  std::string weights;        // with fuse, as in EvalOptions
  bool ema = false;           // with fuse, as in EvalOptions
};
int run_convert(const ConvertOptions& options);

struct BenchOptions {
  std::string recipe;
  std::vector<std::string> set;
  int steps = 10, warmup = 2;
  bool inference = false;  // evaluation alone instead of whole training steps
  bool count = false;      // compute nothing: count what a step's ops compute and move
  bool losses = false;     // print only the loss of each step, to compare two devices
  bool json = false;
};
int run_bench(const BenchOptions& options);
int run_bench_count(const BenchOptions& options);   // bench --count

struct BenchDataOptions {
  std::string source;
  std::string recipe;  // whose augmentation is timed; ImageNet's crop and a flip unless given
  std::vector<std::string> set;
  int images = 200, rounds = 9;
  int epochs = 0;      // of the loader itself, for its memory; the stages are left out
  bool json = false;
};
int run_bench_data(const BenchDataOptions& options);

struct DevicesOptions {
  bool json = false;
};
int run_devices(const DevicesOptions& options);
