#!/usr/bin/env bash
# test.sh: installs what is missing, builds, runs every test plain and the small suites under the sanitizers, and compiles and links with CUDA
# where its toolkit is.
#
# Closes with what failed, a line each, and "N passed, N failed": the test cases of all suites.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

passed=0
failed=0
skipped=0
findings=()

# A failure is said where it happens and again at the end, where a reader looks first.
found() {
  failed=$((failed + $1))
  findings+=("$2")
  echo "$2"
}

# The failed cases and the sanitizers' findings of a suite's log, a line each.
failures_in() {
  awk '/^TEST CASE:/ { name = substr($0, 13) }
       /: (FATAL )?ERROR:/ && name != last { print "  failed: " name " at " $1; last = name }
       /runtime error:|^SUMMARY: .*Sanitizer/ && !seen[$0]++ { print "  " $0 }' "$1"
}

# One suite: its test cases are added to the sums. A crash, a hang or a sanitizer's report is one failure more.
run_suite() {
  local folder=$1 suite=$2
  shift 2
  local log=$folder/test_$suite.log code=0
  echo "== $folder/test_$suite"
  timeout 900 "$@" </dev/null 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  local summary ok=0 bad=0
  summary=$(grep -a '^\[doctest\] test cases:' "$log" | tail -n 1)
  [[ $summary =~ ([0-9]+)\ passed ]] && ok=${BASH_REMATCH[1]}
  [[ $summary =~ ([0-9]+)\ failed ]] && bad=${BASH_REMATCH[1]}
  passed=$((passed + ok))
  if [ "$bad" -gt 0 ] || [ "$code" -ne 0 ]; then
    found "$((bad > 0 ? bad : 1))" "$folder/test_$suite ended with exit code $code"$'\n'"$(failures_in "$log" | head -n 20)"
  elif [ "$ok" -eq 0 ]; then
    found 1 "$folder/test_$suite ran no test case"
  fi
}

build() {
  bash scripts/build.sh "$@" && return 0
  found 1 "The build failed: scripts/build.sh $*"
  return 1
}

# A script of checks that closes with "NAME: N passed, N failed, N skipped". What this machine does not allow to try is skipped, which is no pass.
run_checks() {
  local script=$1 log=build/$1.log
  echo "== scripts/$script.sh"
  timeout 900 bash "scripts/$script.sh" </dev/null 2>&1 | tee "$log"
  if [[ $(tail -n 1 "$log") =~ ^[a-z\ ]+:\ ([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    skipped=$((skipped + BASH_REMATCH[3]))
    [ "${BASH_REMATCH[2]}" -eq 0 ] || found "${BASH_REMATCH[2]}" "scripts/$script.sh"$'\n'"$(grep -a 'FAILED' "$log" | head -n 20)"
  else
    found 1 "scripts/$script.sh did not come to its end"
  fi
}

has_suite() { compgen -G "tests/$1/*.cpp" >/dev/null; }
has_case() { grep -qsiE "TEST_CASE.*$2" tests/"$1"/*.cpp; }

plain() {
  build || return
  for suite in house engine layers models data train; do
    has_suite $suite && run_suite build $suite build/test_$suite
  done
  run_checks check_bad_input
  run_checks check_ranks   # under mpirun and over TCP; without mpirun that half is skipped
}

address() {
  local suites=()
  for suite in engine data; do has_suite $suite && suites+=($suite); done
  [ ${#suites[@]} -gt 0 ] || return
  build --sanitize address,undefined "${suites[@]/#/test_}" || return
  for suite in "${suites[@]}"; do
    UBSAN_OPTIONS=print_stacktrace=1 run_suite build-asan "$suite" "build-asan/test_$suite"
  done
  short_fuzz
}

# The first inputs of scripts/fuzz.sh; what they stumble over counts as one failure.
short_fuzz() {
  echo "== scripts/fuzz.sh 20000 5000"
  if timeout 900 bash scripts/fuzz.sh 20000 5000 </dev/null 2>&1 | tee build-asan/fuzz.log; then passed=$((passed + 1))
  else found 1 "scripts/fuzz.sh 20000 5000"$'\n'"$(failures_in build-asan/fuzz.log | head -n 20)"; fi
}

# Only what starts threads itself: the barriers of OpenMP are invisible to this sanitizer, so OpenMP gets one thread.
threads() {
  local topics=() suites=()
  has_case engine fibers && suites+=(engine) topics+=("fibers*,*workers*,comm:")
  has_case data loader && suites+=(data) topics+=(loader)
  [ ${#suites[@]} -gt 0 ] || return
  build --sanitize thread "${suites[@]/#/test_}" || return
  # This sanitizer's memory map breaks under strong address randomisation; where setarch may switch it off, it does.
  local fixed=()
  setarch -R true 2>/dev/null && fixed=(setarch -R)
  for i in "${!suites[@]}"; do
    OMP_NUM_THREADS=1 run_suite build-tsan "${suites[i]}" \
      "${fixed[@]}" "build-tsan/test_${suites[i]}" --test-case="*${topics[i]}*"
  done
}

# With the CUDA Toolkit here: nvcc takes the same sources, the binary links, and it says why it uses no GPU or which it has.
cuda() {
  command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || return 0
  build --cuda-check lipsgrad test_engine || return
  echo "== build-cuda-check/lipsgrad devices"
  if timeout 60 build-cuda-check/lipsgrad devices </dev/null | grep '^cuda' | grep -v 'has no CUDA'; then passed=$((passed + 1))
  else found 1 "build-cuda-check/lipsgrad devices"; fi
}

if bash scripts/setup.sh; then
  plain
  address
  threads
  cuda
else
  found 1 "scripts/setup.sh"
fi


[ "$failed" -eq 0 ] || printf '%s\n' "== what failed" "${findings[@]}"
[ "$skipped" -eq 0 ] || echo "$skipped skipped, as said above"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
