// progress: what the line says, and what reaches a file that is no terminal.
#include "train/progress.h"

#include <doctest/doctest.h>

#include "engine/durable_file.h"
#include "synthetic_run.h"

namespace {

const ProgressLine line{.title = "epoch 3/20",
                        .done = 820,
                        .total = 2000,
                        .elapsed = 83,
                        .remaining = 121.4,
                        .postfix = "312 images/s, loss=0.5321"};

}  // namespace

TEST_CASE("progress: clock") {
  CHECK(clock_text(0) == "00:00");
  CHECK(clock_text(83.4) == "01:23");
  CHECK(clock_text(3599.6) == "1:00:00");
  CHECK(clock_text(90061) == "25:01:01");
  CHECK(clock_text(-1) == "?");
}

TEST_CASE("progress: the bar fits the terminal") {
  CHECK(plain_progress(line) == "epoch 3/20: 41% 820/2000 [01:23<02:01, 312 images/s, loss=0.5321]");
  CHECK(progress_bar(line, 79, false) ==
        "epoch 3/20:  41%|####1     | 820/2000 [01:23<02:01, 312 images/s, loss=0.5321]");
  CHECK(progress_bar(line, 79, true) ==
        "epoch 3/20:  41%|████      | 820/2000 [01:23<02:01, 312 images/s, loss=0.5321]");
  CHECK(progress_bar(line, 30, false).size() == 29);
  CHECK(progress_bar(ProgressLine{.title = "eval", .postfix = {}}, 60, false).find("eval:   0%|") == 0);
}

TEST_CASE("progress: without a terminal there are whole lines and nothing to erase") {
  const TestFolder folder("progress");
  const auto path = folder.path / "log";
  std::FILE* file = std::fopen(path.c_str(), "w");
  {
    Progress progress(file);
    progress.start("epoch 1/2", 100, 40);
    progress.update(41, "loss=1");
    progress.log("train/7.jpg is damaged: left out");
    progress.update(100, "loss=0.5");
    progress.finish();
  }
  std::fclose(file);
  const std::string text = read_file(path);
  CHECK(text.starts_with("train/7.jpg is damaged: left out\nepoch 1/2: 100% 100/100 ["));
  CHECK(text.ends_with("loss=0.5]\n"));
  CHECK(text.find('\r') == text.npos);
  CHECK(text.find('\033') == text.npos);
}
