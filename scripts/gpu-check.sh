#!/usr/bin/env bash
# gpu-check.sh [STEPS]: everything that only a GPU can show, in one command; a short table comes last.
#
# In a clone it builds with CUDA first; in a folder made by bundle.sh it takes what is there. Then: the op tests on the device, under
# compute-sanitizer where that is installed (memcheck over all, racecheck over attention and convolutions); the same 50 steps on CPU and GPU; a
# recorded step against an eager one, bit for bit; and images/s of a training step in bf16 at batch 256, beside PyTorch where python3 has torch and timm.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
steps=${1:-30}
batch=${BATCH:-256}
models=${MODELS:-"swin_tiny lipsformer_swin_tiny cswin_tiny deit_small deit_base"}
declare -a table=()
row() { table+=("$(printf '%-34s %s' "$1" "$2")"); }
finish() {
  echo
  printf '%s\n' "${table[@]}"
  exit "$1"
}

if [ -x "$here/lipsgrad" ]; then
  cd "$here" || exit 1
  lipsgrad=./lipsgrad tests=./test_engine
else
  cd "$here/.." || exit 1
  bash scripts/build.sh --cuda lipsgrad test_engine || { row build failed; finish 1; }
  lipsgrad=build-cuda/lipsgrad tests=build-cuda/test_engine
fi
row build ok

devices=$($lipsgrad devices | grep '^cuda')
echo "$devices"
row device "${devices#cuda* }"
[[ $devices == cuda:* ]] || finish 1
failed=0
check() {   # check NAME LOG COMMAND...
  local name=$1 log=$2
  shift 2
  if "$@" >"$log" 2>&1; then row "$name" "ok: $(grep -a 'test cases\|ERROR SUMMARY' "$log" | tail -n 1 | tr -s ' ')"
  else row "$name" "FAILED, see $log"; tail -n 15 "$log"; failed=1; fi
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
logs=${OUT:-gpu-check-logs}
mkdir -p "$logs"

check 'op tests on the device' "$logs/tests.log" "$tests"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
some='ops: gelu*,ops: linear*,ops: residual*,ops: layer_norm*,ops: window_attention*,ops: depthwise*,whole step*'
shared='ops: window_attention*,ops: depthwise*,ops: layer_norm*'
if [ -n "$sanitizer" ]; then
  check 'memcheck' "$logs/memcheck.log" timeout 500 "$sanitizer" --tool memcheck --error-exitcode 9 "$tests" -tc="$some"
  check 'racecheck' "$logs/racecheck.log" timeout 500 "$sanitizer" --tool racecheck --error-exitcode 9 "$tests" -tc="$shared"
else
  row compute-sanitizer 'not installed here'
fi

# A small Swin on made-up pixels: 50 steps, the loss of each.
small=(fashion-lipsformer --set run.shards=1 --set data.batch_size=16)
curve() { $lipsgrad bench "${small[@]}" --steps 50 --warmup 0 --losses "$@"; }
largest='{ d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d } END { print most + 0 }'
if curve --set run.device=cpu >"$work/cpu" && curve --set run.device=cuda >"$work/cuda" &&
  curve --set run.device=cuda --set run.capture=false >"$work/eager"; then
  difference=$(paste "$work/cpu" "$work/cuda" | awk "$largest")
  # f32 sums in another order, over 50 steps: 1e-6 at the first, a hundredth where they have drifted apart.
  if awk -v d="$difference" 'BEGIN { exit !(d < 0.01) }'; then row '50 steps, CPU and GPU' "largest difference of the loss $difference"
  else row '50 steps, CPU and GPU' "FAILED: the loss differs by $difference"; failed=1; fi
  if cmp -s "$work/cuda" "$work/eager"; then row 'recorded = eager' 'bit for bit'
  else row 'recorded = eager' DIFFERENT; failed=1; fi
else
  row '50 steps, CPU and GPU' FAILED
  failed=1
fi

# figure MODEL FORMAT EXPRESSION [SETTING...]: one number of the bench of a model, in bf16.
figure() {
  local model=$1 format=$2 expression=$3
  shift 3
  $lipsgrad bench "$model" --set run.device=cuda --set run.dtype=bf16 --set data.batch_size="$batch" "$@" --steps "$steps" --warmup 10 --json \
    2>>"$logs/$model.log" | python3 -c "import json, sys; r = json.load(sys.stdin); print('$format' % ($expression))" 2>/dev/null
}
peer=$here/torch_step.py
[ -f "$peer" ] || peer=$here/../bench/torch_step.py
has_torch=no
python3 -c 'import torch, timm; assert torch.cuda.is_available()' 2>/dev/null && has_torch=yes
for model in $models; do
  ours=$(figure "$model" '%.0f images/s, %.1f GB' 'r["images_per_s"], r["device_bytes"] / 1e9' --set ledger.every=0)
  ledger=$(figure "$model" 'ledger %.2f %%' '100 * r["ledger_share"]')
  theirs=
  [ "$has_torch" = yes ] && theirs=$(python3 "$peer" "$model" "$batch" "$steps" 2>>"$logs/$model.log" | tail -n 1)
  [ -n "$ours" ] || { ours="FAILED, see $logs/$model.log"; failed=1; }
  row "$model" "$ours, $ledger${theirs:+; PyTorch $theirs}"
done
finish $failed
