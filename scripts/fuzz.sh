#!/usr/bin/env bash
# fuzz.sh [IMAGES [OTHERS [SEED]]]: mutated pictures and mutated tar, IDX, CIFAR, index and weight files, through the readers of data/ under the
# address and undefined-behaviour sanitizers.
#
# The same numbers give the same inputs. A finding is written to build-asan/findings-SEED-IMAGES-OTHERS and ends the script with 1; how one is made
# small and kept as a test is said in CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/build.sh --sanitize address,undefined fuzz
findings=build-asan/findings-${3:-1}-${1:-1000000}-${2:-200000}
rm -rf "$findings"
build-asan/fuzz run "$findings" "${3:-1}" "${1:-1000000}" "${2:-200000}"
