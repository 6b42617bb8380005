// The fuzz targets: what was once a finding stays none, and the driver's inputs are the same wherever they are made.
#include "helpers.h"

#include "tests/fuzz/mutate.h"

TEST_CASE("fuzz: what was once a finding is none any more") {
  int files = 0;
  for (const auto& folder : fs::directory_iterator(SOURCE_DIR "/tests/fuzz/corpus"))
    for (const auto& file : fs::directory_iterator(folder)) {
      CAPTURE(file.path().string());
      const Bytes bytes = read_bytes(file.path());
      CHECK_NOTHROW(fuzz_target(folder.path().filename().string()).run(bytes));
      files++;
    }
  CHECK(files >= 12);
}

TEST_CASE("fuzz: inputs are a function of target, seed and number, and all are read or refused") {
  for (const FuzzTarget& target : fuzz_targets()) {
    CAPTURE(target.name);
    int changed = 0;
    for (uint64_t number = 0; number < 40; number++) {
      CAPTURE(number);
      const Bytes input = mutated(target, 1, number);
      CHECK(input == mutated(target, 1, number));
      changed += input != mutated(target, 2, number);
      CHECK_NOTHROW(target.run(input));
    }
    CHECK(changed > 30);
    for (const Bytes& seed : target.seeds) CHECK_NOTHROW(target.run(seed));
  }
}
