#!/usr/bin/env bash
# claims.sh CLAIM: runs the small experiments behind a claim of docs/results.md, one after the other, and prints their table.
#
# CLAIM: lipsformer, sigma-reparam, temperature, unified, enforced, accuracy-bound, certified, text, or all. Runs that are finished are kept in
# runs/claims/ and not repeated; report.html there shows them side by side.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lipsgrad=${LIPSGRAD:-build/lipsgrad}
folder=${CLAIMS:-runs/claims}

# run NAME RECIPE [--set ...]: a run, or what is there of it.
run() {
  local name=$1
  shift
  names+=("$folder/$name")
  [ -f "$folder/$name/finished" ] && return
  rm -rf "${folder:?}/$name"
  mkdir -p "$folder"
  "$lipsgrad" train "$@" --run "$folder/$name" </dev/null >"$folder/$name.log" 2>&1
  local code=$?
  # 1 is the guard: the update was refused, and that is a result.
  [ $code -eq 0 ] || [ $code -eq 1 ] || { echo "claims.sh: $name ended with $code: $folder/$name.log" >&2; exit 1; }
  touch "$folder/$name/finished"
}

# One row a run: final accuracy and loss, entropies, norms, how close the bound came to the promised one.
table() {
  printf '%-34s %8s %8s %9s %9s %9s %9s %12s %12s %s\n' run top1 loss H.min H.last floor.ok sigma.max bound.max promised events
  for path in "${names[@]}"; do
    local promised
    promised=$(grep -o '"log10_promised_bound_rms": [^,}]*' "$path/ledger.json" | sed 's/.*: //')
    awk -F, -v run="$(basename "$path")" -v promised="$promised" '
      FNR == 1 { file++; delete column; for (i = 1; i <= NF; i++) { column[$i] = i; name[file, i] = $i }; columns[file] = NF; next }
      file == 1 { top1 = 100 * $(column["top1"]) }
      file == 2 { loss[n++] = $(column["loss"]); b = $(column["log10_bound_rms"]); if (b != "inf" && b != "nan" && (bound == "" || b > bound)) bound = b }
      file == 3 { m = $2; for (i = 3; i <= NF; i++) if ($i < m) m = $i; last = m; if (least == "" || m < least) least = m
                  for (i = 2; i <= NF; i++) entropy[$1, name[file, i]] = $i }
      file == 4 { for (i = 2; i <= NF; i++) { floors++; if (entropy[$1, name[file, i]] >= $i) kept++ } }
      file == 5 { for (i = 2; i <= NF; i++) if (name[file, i] ~ /^sigma\./ && $i > sigma) sigma = $i }
      file == 6 { events = events $(column["kind"]) " " }
      END { for (i = n > 50 ? n - 50 : 0; i < n; i++) { s += loss[i]; k++ }
            above = floors ? (kept == floors ? "yes" : "NO") : "-"
            printf "%-34s %8.2f %8.4f %9.4f %9.4f %9s %9.2f %12s %12s %s\n", run, top1, s / k, least, last, above, sigma,
                   bound == "" ? "-" : sprintf("1e%.3f", bound), promised == "null" ? "-" : sprintf("1e%.3f", promised), events }
    ' "$path/epochs.csv" "$path/steps.csv" "$path/entropy.csv" "$path/entropy_floor.csv" "$path/norms.csv" "$path/events.csv"
  done
  "$lipsgrad" report "${names[@]}" --output "$folder/$claim.html" >/dev/null && echo "side by side: $folder/$claim.html"
}

# LipsFormer against Swin, no warmup, four rates.
lipsformer() {
  for lr in 1e-3 4e-3 1.6e-2 6.4e-2; do
    run "swin-$lr" fashion-swin --set schedule.epochs=1 --set data.batch_size=64 --set optimizer.lr=$lr
    run "lipsformer-$lr" fashion-lipsformer --set schedule.epochs=1 --set data.batch_size=64 --set optimizer.lr=$lr
  done
}

# A ViT with pre-LayerNorm against one of sigma-Reparam without any norm, no warmup, three rates.
sigma_reparam() {
  for lr in 4e-3 1.6e-2 6.4e-2; do
    run "vit-layer-$lr" fashion-vit --set optimizer.lr=$lr
    run "vit-sigma-reparam-$lr" fashion-vit-sigma-reparam --set optimizer.lr=$lr
  done
}

# The intervention: logits divided by 0.1 from a fifth, or from half, of the training on; the rate of 4e-3 is healthy without it.
temperature() {
  run vit-layer-4e-3 fashion-vit --set optimizer.lr=4e-3
  run vit-sigma-reparam-4e-3 fashion-vit-sigma-reparam --set optimizer.lr=4e-3
  for epoch in 0.2 0.5; do
    local sharpen=(--set schedule.temperature_epoch=$epoch --set schedule.temperature=0.1 --set optimizer.lr=4e-3)
    run "vit-layer-sharp-$epoch" fashion-vit "${sharpen[@]}"
    run "vit-sigma-reparam-sharp-$epoch" fashion-vit-sigma-reparam "${sharpen[@]}"
  done
}

# Unified Normalization beside LayerNorm and the other norms over the batch; the outlier filter on and off.
unified() {
  for norm in layer batch moving_average_batch power; do
    run "swin-$norm" fashion-unified-swin --set parts.norm=$norm --set parts.norm_filter=none
  done
  run swin-unified fashion-unified-swin
  run swin-unified-unfiltered fashion-unified-swin --set parts.norm_filter=none
}

# Every constraint with Muon and with AdamW: the first four promise a bound, the others do not.
enforced() {
  for method in spectral_soft_cap spectral_normalize stiefel spectral_hard_cap weight_decay spectral_weight_decay spectral_hammer; do
    for optimizer in muon adamw; do
      local rate=0.1
      [ $optimizer = adamw ] && rate=1e-2
      local strength=0
      [ $method = spectral_weight_decay ] && strength=0.05
      run "vit-$method-$optimizer" fashion-vit-enforced --set model.depths=[2] --set constraint.sigma_max=1.5 --set constraint.method=$method \
        --set optimizer.name=$optimizer --set optimizer.lr=$rate --set constraint.strength=$strength
    done
  done
}

# Accuracy against the promised bound.
accuracy_bound() {
  for sigma in 1.0 1.3 1.7 2.2 3.0; do
    run "vit-cap-$sigma" fashion-vit-enforced --set model.depths=[3] --set constraint.sigma_max=$sigma
  done
}

# The character model of the enforced-Lipschitz paper, small.
text() {
  [ -f datasets/text.txt ] || scripts/get_text.sh
  run gpt-cap-1.4 text-enforced-gpt
}

# How many images are certain to keep their class, and an attack on them.
certified() {
  for model in mlp swin; do
    run "certified-$model" fashion-certified-$model
    "$lipsgrad" eval "$folder/certified-$model" --certify 2>/dev/null
  done
}

one() {
  claim=$1
  names=()
  "${claim//-/_}"
  echo
  echo "== $claim"
  table
}

case ${1:-} in
  lipsformer | sigma-reparam | temperature | unified | enforced | accuracy-bound | certified | text) one "$1" ;;
  all) for claim in lipsformer sigma-reparam temperature unified enforced accuracy-bound certified text; do one "$claim"; done ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
