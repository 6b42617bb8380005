#!/usr/bin/env bash
# soundness.sh [COUNT]: holds the certified bounds of 10,000 (COUNT) random layers and networks against the largest stretch that is found, and prints a table.
#
# Seven tenths are layers, three tenths blocks and whole networks. A case that fails says its number; LIPSGRAD_SOUNDNESS=1234-1234 runs it alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
count=${1:-10000}
scripts/build.sh test_layers test_models
LIPSGRAD_SOUNDNESS=$((count * 7 / 10)) build/test_layers --test-case="soundness: no random*"
LIPSGRAD_SOUNDNESS=$((count - count * 7 / 10)) build/test_models --test-case="soundness: no random*"
# How close certified norms of matrices, depthwise and strided convolutions come to the true ones.
LIPSGRAD_SOUNDNESS=1 build/test_layers --test-case="conv norm:*,certified norms*"
