// capture.cpp: eager first, then the recording, then replays.
#include "engine/capture.h"

void StepGraph::run(const std::function<void()>& step) {
  const int number = runs_++;
  if (number < warm_up_) step();
  else if (number == warm_up_) record(step);
  else replay(step);
}
