#!/usr/bin/env bash
# fuzz.sh [IMAGES [OTHERS [SEED]]]: mutated pictures and mutated tar, IDX, CIFAR, index and weight files, through the readers of data/ under the
# address and undefined-behaviour sanitizers.
#
# The same numbers give the same inputs. A finding is written to build-asan/findings and ends the script with 1; how one is made small and kept as a
# test is said in CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/build.sh --sanitize address,undefined fuzz
rm -rf build-asan/findings
build-asan/fuzz run build-asan/findings "${3:-1}" "${1:-1000000}" "${2:-200000}"
