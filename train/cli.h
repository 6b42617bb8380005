// cli.h: the command line: from words to options, and from errors to one line and an exit code.
#pragma once
#include <functional>

#include "train/commands.h"

// What the command line calls; main.cpp fills it with the real functions, the tests with their own.
struct Commands {
  std::function<int(const TrainOptions&)> train;
  std::function<int(const EvalOptions&)> eval;
  std::function<int(const PredictOptions&)> predict;
  std::function<int(const InspectCommand&)> inspect;
  std::function<int(const ReportOptions&)> report;
  std::function<int(const SummaryOptions&)> summary;
  std::function<int(const ForwardOptions&)> forward;
  std::function<int(const DataPackOptions&)> data_pack;
  std::function<int(const DataVerifyOptions&)> data_verify;
  std::function<int(const DataFetchOptions&)> data_fetch;
  std::function<int(const DataShowOptions&)> data_show;
  std::function<int(const ConvertOptions&)> convert;
  std::function<int(const BenchOptions&)> bench;
  std::function<int(const BenchDataOptions&)> bench_data;
  std::function<int(const DevicesOptions&)> devices;
};

// Never throws; errors go to stderr as one line "lipsgrad: ...".
int run_cli(int argc, const char* const* argv, const Commands& commands);
