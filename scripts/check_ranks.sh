#!/usr/bin/env bash
# check_ranks.sh: trains a tiny recipe on one process and on several under mpirun and over TCP, and compares; then lets a rank die.
#
# Closes with one line, "ranks: N passed, N failed, N skipped".
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/checks.sh"

for class in gray.jpg rgb.png; do
  mkdir -p "good/train/$class" "good/val/$class"
  for i in 0 1 2 3 4 5 6 7; do golden $class >"good/train/$class/$i.${class#*.}"; done
  for i in 0 1 2; do golden $class >"good/val/$class/$i.${class#*.}"; done
done
{
  tiny_recipe
  cat <<'TOML'
mixup = 0
cutmix = 0
[data]
path = "good"
batch_size = 4
workers = 1
[optimizer]
lr_base_batch = 0
lr = 1e-3
[schedule]
epochs = 3
[run]
threads = 1
shards = 1
comm_timeout = 60
TOML
} >tiny.toml
as_one() { timeout 120 "$lipsgrad" train tiny.toml "$@" </dev/null >log 2>&1; }
under_mpirun() {   # RANKS ARGUMENTS...
  local ranks=$1
  shift
  timeout 120 mpirun -np "$ranks" --oversubscribe --allow-run-as-root "$lipsgrad" train tiny.toml "$@" </dev/null >log 2>&1
}
over_tcp() {   # RANKS ARGUMENTS...
  local ranks=$1 port=$((20000 + RANDOM % 12000)) code=0 rank processes=()
  shift
  for ((rank = 0; rank < ranks; rank++)); do
    RANK=$rank WORLD_SIZE=$ranks LOCAL_RANK=$rank MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
      timeout 120 "$lipsgrad" train tiny.toml "$@" </dev/null >"log.$rank" 2>&1 &
    processes+=($!)
  done
  for process in "${processes[@]}"; do wait "$process" || code=$?; done
  cat log.* >log
  return $code
}

# A table without images_per_s and data_wait.
timeless() {
  awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) drop[i] = $i == "images_per_s" || $i == "data_wait" }
           { for (i = 1; i <= NF; i++) if (!drop[i]) printf "%s,", $i; print "" }' "$1"
}

# equal WHAT A B: every step and the last weights and state, bit for bit.
equal() {
  local problem='' last
  last=$(ls "$2/checkpoints" 2>/dev/null | tail -n 1)
  [ -n "$last" ] || problem="$2 has no checkpoint"
  for table in steps lipschitz entropy norms; do
    [ "$(timeless "$2/$table.csv" 2>&1)" = "$(timeless "$3/$table.csv" 2>&1)" ] || problem="$problem $table.csv differs"
  done
  for file in model.safetensors state.safetensors; do
    cmp -s "$2/checkpoints/$last/$file" "$3/checkpoints/$last/$file" || problem="$problem $file differs"
  done
  verdict "$1" "$problem" log
}

# runs WHAT COMMAND...
runs() {
  local what=$1 code=0
  shift
  "$@" || code=$?
  verdict "$what" "$([ $code -eq 0 ] || echo "exit code $code")" log
}

runs "one process" as_one --run one --set run.shards=2
runs "one process, Muon" as_one --run one-muon --set run.shards=2 --set optimizer.name=muon
runs "two ranks over TCP" over_tcp 2 --run tcp
equal "two ranks over TCP equal two shards" one tcp

if command -v mpirun >/dev/null; then
  runs "two ranks under mpirun" under_mpirun 2 --run two
  equal "two ranks equal two shards" one two
  runs "two ranks once more" under_mpirun 2 --run two-again
  equal "the same run after run" two two-again
  runs "two ranks with ZeRO-1" under_mpirun 2 --run zero --set run.zero=1
  equal "ZeRO-1 changes nothing" one zero
  runs "Muon with ZeRO-1" under_mpirun 2 --run zero-muon --set run.zero=1 --set optimizer.name=muon
  equal "ZeRO-1 changes nothing of Muon" one-muon zero-muon
  verdict "only the first rank speaks" "$([ "$(grep -c '^finished' log)" = 1 ] || echo "$(grep -c '^finished' log) ranks do")" log
else
  skip "mpirun is not here"
fi

# dies WHAT LAUNCH: rank 1 is killed in the middle of a long run; the other ends soon, with a line that names it.
dies() {
  local what=$1 run="die-$2" problem='' launcher victim
  "$2" 2 --run "$run" --set schedule.epochs=100000 --set run.checkpoint_every=0 --set run.eval_every=0 --set ledger.every=0 &
  launcher=$!
  for _ in $(seq 200); do
    [ "$( (wc -l <"$run/steps.csv") 2>/dev/null || echo 0)" -gt 5 ] && break
    sleep 0.1
  done
  victim=
  for process in $(pgrep -f -- "train tiny.toml --run $run "); do
    [ "$(readlink "/proc/$process/exe")" = "$lipsgrad" ] || continue
    tr '\0' '\n' <"/proc/$process/environ" | grep -qxE '(RANK|OMPI_COMM_WORLD_RANK)=1' && victim=$process
  done
  [ -n "$victim" ] && kill -9 "$victim" || problem="no rank 1 was found"
  wait "$launcher" && problem="$problem the launch ended well"
  [ "$(grep -ac '^lipsgrad: rank 0 of 2: collective [0-9]* (.*) cannot end: rank 1 is gone' log)" = 1 ] || problem="$problem there is no line that names it"
  grep -q '"collectives":\[{' "$run/flight_recorder.json" 2>/dev/null || problem="$problem there is no flight recorder"
  verdict "$what" "$problem" log
}

dies "a rank that is killed over TCP" over_tcp
if command -v mpirun >/dev/null; then dies "a rank that is killed under mpirun" under_mpirun; fi

summary ranks
