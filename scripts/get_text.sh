#!/usr/bin/env bash
# get_text.sh [OUTPUT]: makes datasets/text.txt, a text of about 0.3 MB in plain ASCII: the licences that every Debian carries.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output=${1:-datasets/text.txt}
mkdir -p "$(dirname "$output")"
cat $(find /usr/share/common-licenses -type f | LC_ALL=C sort) | LC_ALL=C tr -cd '\11\12\40-\176' >"$output.part"
mv "$output.part" "$output"
echo "$output: $(wc -c <"$output") characters"
