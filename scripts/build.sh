#!/usr/bin/env bash
# build.sh [--cuda | --cuda-check | --sanitize address,undefined|thread] [TARGET...]: configures where needed and builds what has changed.
#
# Into build/ (with CUDA if the machine has a GPU and the toolkit), build-cuda/ with --cuda (with CUDA in any case), build-cuda-check/ (the same
# without optimisation, for one GPU model: whether it compiles and links), or build-asan/ and build-tsan/ for the sanitizers. JOBS=N compiles N files at a time.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

folder=build
configuration=()
if [ "${1:-}" = --cuda ]; then
  folder=build-cuda
  configuration=(-DLIPSGRAD_CUDA=ON)
  shift
elif [ "${1:-}" = --cuda-check ]; then
  folder=build-cuda-check
  configuration=(-DLIPSGRAD_CUDA=ON -DLIPSGRAD_CUDA_ARCHITECTURES=90a -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O0
                 "-DCMAKE_CUDA_FLAGS=-Xcicc -O0 -Xptxas -O0")
  shift
elif [ "${1:-}" = --sanitize ]; then
  case ${2:-} in
    address,undefined) folder=build-asan ;;
    thread) folder=build-tsan ;;
    *) echo "build.sh: --sanitize takes address,undefined or thread, not '${2:-}'" >&2; exit 64 ;;
  esac
  # A sanitizer looks for mistakes, not for speed: -O1 compiles in a fraction of the time.
  configuration=("-DLIPSGRAD_SANITIZE=$2" -DCMAKE_BUILD_TYPE=None "-DCMAKE_CXX_FLAGS=-O1 -g1")
  shift 2
fi

# A large source file takes up to 2 GB to compile.
jobs_that_fit() {
  local cores memory_kb
  cores=$(nproc)
  memory_kb=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  local by_memory=$((${memory_kb:-0} / 2097152))
  local jobs=$((by_memory < cores ? by_memory : cores))
  echo $((jobs > 0 ? jobs : 1))
}

# A folder that was configured for another place (a copied or moved clone) or not to the end is configured anew.
configured_for=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$root/$folder/CMakeCache.txt" 2>/dev/null || true)
if [ "$configured_for" != "$root" ] || [ ! -f "$root/$folder/build.ninja" ]; then
  cmake --fresh -S "$root" -B "$root/$folder" -G Ninja "${configuration[@]}" >/dev/null
fi

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(all)
# In a log only what goes wrong is of interest.
quiet=()
[ -t 1 ] || quiet=(-- --quiet)
cmake --build "$root/$folder" --parallel "${JOBS:-$(jobs_that_fit)}" --target "${targets[@]}" "${quiet[@]}"
