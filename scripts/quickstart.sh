#!/usr/bin/env bash
# quickstart.sh: from a fresh clone to a trained LipsFormer-Swin on Fashion-MNIST and its report, in runs/quickstart.
#
# Stopped in the middle, it goes on where it was when started again. A finished run is kept under another name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

recipe=recipes/fashion-lipsformer.toml
run=runs/quickstart
data=datasets/fashion-mnist
finished=$run/quickstart.done

say() { printf '\n== %s\n' "$*"; }

# The folder appears under its name only when it is complete.
pack_data() {
  rm -rf "$data.part"
  build/lipsgrad data fetch fashion-mnist "$data.part"
  mv "$data.part" "$data"
}

move_aside() {
  local aside
  aside=$run-$(date +%Y%m%d-%H%M%S)
  mv "$run" "$aside"
  echo "The run that was there is now $aside."
}

say "Packages"
bash scripts/setup.sh

say "Build"
bash scripts/build.sh lipsgrad

say "Data"
[ -d "$data" ] || pack_data
echo "$data is ready."

say "Training"
resume=()
if [ -e "$finished" ]; then
  move_aside
elif compgen -G "$run/checkpoints/step-*" >/dev/null; then
  echo "Going on with the unfinished $run."
  resume=(--resume)
elif [ -e "$run" ]; then
  move_aside
fi
code=0
build/lipsgrad train "$recipe" --run "$run" "${resume[@]}" || code=$?
if [ "$code" -ne 0 ]; then
  [ "$code" -ne 75 ] || echo "Stopped and saved. Start scripts/quickstart.sh again to go on." >&2
  exit "$code"
fi

say "Evaluation"
build/lipsgrad eval "$run"

say "Report"
build/lipsgrad report "$run"
touch "$finished"
echo "Open the report: $PWD/$run/report.html"
