// main.cpp: the binary.
#include "train/cli.h"

int main(int argc, char** argv) {
  return run_cli(argc, argv,
                 {.train = run_train,
                  .eval = run_eval,
                  .predict = run_predict,
                  .inspect = run_inspect,
                  .report = run_report,
                  .summary = run_summary,
                  .forward = run_forward,
                  .data_pack = run_data_pack,
                  .data_verify = run_data_verify,
                  .data_fetch = run_data_fetch,
                  .data_show = run_data_show,
                  .convert = run_convert,
                  .bench = run_bench,
                  .bench_data = run_bench_data,
                  .devices = run_devices});
}
