#!/usr/bin/env bash
# check_bad_input.sh: gives the built binary what a user may get wrong and a disk may do, and looks at what it says.
#
# Each time: the right exit code (docs/exit-codes.md), one line on stderr that begins with "lipsgrad: " and says what is wrong, no crash.
# Closes with one line, "bad input: N passed, N failed, N skipped".
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/checks.sh"

mounted=
cleanup() {
  [ -z "$mounted" ] || umount "$mounted"
  rm -rf "$scratch"
}
trap cleanup EXIT

# complains WHAT CODE TEXT COMMAND...: the last line on stderr is the error, and says TEXT. Before it only the progress of a training.
complains() {
  local what=$1 code=$2 text=$3 problem='' got=0 errors
  shift 3
  timeout 300 "$@" </dev/null >stdout 2>stderr || got=$?
  errors=$(grep -ac '^lipsgrad: ' stderr)
  if [ "$got" -ne "$code" ]; then problem="exit code $got instead of $code"
  elif [ "$errors" -ne 1 ]; then problem="$errors lines of error instead of one"
  elif ! tail -n 1 stderr | grep -aq '^lipsgrad: '; then problem="the error is not the last line"
  elif ! tail -n 1 stderr | grep -aqF -- "$text"; then problem="the error does not say '$text'"
  fi
  verdict "$what" "$problem" stderr
}

# refuses: complains, and has said nothing else before.
refuses() {
  complains "$@"
  [ "$(wc -l <stderr)" -le 1 ] || verdict "$1: stderr" "$(wc -l <stderr) lines instead of one" stderr
}

# works WHAT COMMAND...
works() {
  local what=$1 got=0
  shift
  timeout 300 "$@" </dev/null >stdout 2>stderr || got=$?
  verdict "$what" "$([ $got -eq 0 ] || echo "exit code $got")" stderr
}

holds() { verdict "$1" "$("${@:2}" >/dev/null 2>&1 || echo "not so: ${*:2}")" stderr; }

jpeg() { golden gray.jpg; }

make_dataset() {
  for class in ankle bag; do
    mkdir -p "$1/train/$class" "$1/val/$class"
    for i in 0 1 2 3 4 5; do jpeg >"$1/train/$class/$i.jpg"; done
    for i in 0 1; do jpeg >"$1/val/$class/$i.jpg"; done
  done
}

{
  tiny_recipe
  cat <<'TOML'
[data]
path = "good"
batch_size = 4
[schedule]
epochs = 2
TOML
} >tiny.toml
make_dataset good
works "a good run" "$lipsgrad" train tiny.toml --run good-run
weights=$(ls -d good-run/checkpoints/*/model.safetensors | tail -n 1)

# --- the command line and the recipe
refuses "no command" 64 "--help" "$lipsgrad"
refuses "unknown command" 64 "train" "$lipsgrad" trian tiny.toml
refuses "unknown flag" 64 "--resume" "$lipsgrad" train tiny.toml --resum
refuses "a flag without its value" 64 "--run" "$lipsgrad" train tiny.toml --run
refuses "a missing recipe" 66 "no-such" "$lipsgrad" summary no-such.toml
refuses "a recipe that is a folder" 66 "good" "$lipsgrad" summary ./good
refuses "unknown key in --set" 78 "embed_dim" "$lipsgrad" summary tiny.toml --set model.embed_dims=8
refuses "wrong type in --set" 78 "embed_dim" "$lipsgrad" summary tiny.toml --set model.embed_dim=wide
refuses "out of range" 78 "drop_path_rate" "$lipsgrad" summary tiny.toml --set model.drop_path_rate=2
refuses "parts that do not fit" 78 "window" "$lipsgrad" summary tiny.toml --set model.window_size=3
sed 's/embed_dim = 8/embed_dims = 8/' tiny.toml >key.toml
refuses "unknown key in a file" 78 "embed_dim" "$lipsgrad" summary key.toml
sed 's/embed_dim = 8/embed_dim = "8"/' tiny.toml >type.toml
refuses "wrong type in a file" 78 "embed_dim" "$lipsgrad" summary type.toml
sed 's/embed_dim = 8/embed_dim = = 8/' tiny.toml >syntax.toml
refuses "a recipe that is not TOML" 78 "syntax.toml" "$lipsgrad" summary syntax.toml
refuses "a recipe of random bytes" 78 "noise.toml" bash -c 'head -c 300 /dev/urandom >noise.toml; exec "$0" summary noise.toml' "$lipsgrad"
refuses "a full disk behind stdout" 74 "printed" bash -c '"$0" summary tiny.toml >/dev/full' "$lipsgrad"

# --- the data
refuses "a missing data folder" 66 "nowhere" "$lipsgrad" train tiny.toml --set data.path=nowhere --run r1
holds "and no run folder is left" test ! -e r1
cp -r good no-val && rm -r no-val/val
refuses "a missing validation part" 66 "val" "$lipsgrad" train tiny.toml --set data.path=no-val --run r2
holds "and no run folder is left" test ! -e r2
cp -r good empty-class && rm empty-class/train/bag/*
refuses "an empty class" 65 "bag" "$lipsgrad" train tiny.toml --set data.path=empty-class --run r3
refuses "more classes than outputs" 78 "num_classes" "$lipsgrad" train tiny.toml --set model.num_classes=1 --run r4
complains "a batch larger than the dataset" 78 "batch" "$lipsgrad" train tiny.toml --set data.batch_size=64 --run r5
works "and the same folder can be used when that is put right" "$lipsgrad" train tiny.toml --run r5

works "packing" "$lipsgrad" data pack good packed
works "a run on shards" "$lipsgrad" train tiny.toml --set data.path=packed --run r6
cp -r packed cut
shard=$(find cut -name '*train*.tar' -o -path '*train/*.tar' | head -n 1)
truncate -s $(($(stat -c %s "$shard") / 2)) "$shard"
refuses "a truncated tar" 65 "$(basename "$shard")" "$lipsgrad" train tiny.toml --set data.path=cut --run r7
head -c 4096 /dev/urandom >"$shard"
refuses "a tar of random bytes" 65 "$(basename "$shard")" "$lipsgrad" train tiny.toml --set data.path=cut --run r8
: >"$shard"
refuses "an empty tar" 65 "$(basename "$shard")" "$lipsgrad" train tiny.toml --set data.path=cut --run r9

: >zero.jpg
head -c 500 /dev/urandom >garbage.jpg
jpeg | head -c 200 >cut.jpg
jpeg >good.jpg
refuses "predict: a zero-byte JPEG" 65 "zero.jpg" "$lipsgrad" predict zero.jpg --run good-run
refuses "predict: garbage" 65 "garbage.jpg" "$lipsgrad" predict garbage.jpg --run good-run
refuses "predict: half a JPEG" 65 "cut.jpg" "$lipsgrad" predict cut.jpg --run good-run
refuses "predict: no such image" 66 "nowhere.jpg" "$lipsgrad" predict nowhere.jpg --run good-run
refuses "predict: a bad image beside a good one" 65 "zero.jpg" "$lipsgrad" predict good.jpg zero.jpg good.jpg --run good-run
holds "and the good ones are answered" test "$(grep -c good.jpg stdout)" -eq 2

cp -r good damaged
cp zero.jpg damaged/train/bag/1.jpg
cp garbage.jpg damaged/train/ankle/4.jpg
cp cut.jpg damaged/val/bag/0.jpg
works "a run with damaged images" "$lipsgrad" train tiny.toml --set data.path=damaged --run r10
holds "they are counted" test "$(tail -n 1 r10/epochs.csv | grep -o '[0-9]*$')" -eq 3
holds "and named" grep -q 'bag/1.jpg' r10/events.csv
complains "more damaged images than may be" 65 "2 of 12 images are damaged, data.max_damaged allows 1" "$lipsgrad" train tiny.toml \
  --set data.path=damaged --set data.max_damaged=1 --run r12
holds "the first are named" grep -q 'bag/1.jpg (the image is empty (0 bytes))' stderr
complains "a damaged image where none may be" 65 "data.max_damaged allows 0" "$lipsgrad" eval tiny.toml --weights "$weights" \
  --set data.path=damaged --set data.max_damaged=0
refuses "a negative number of damaged images" 78 "max_damaged" "$lipsgrad" summary tiny.toml --set data.max_damaged=-1
for image in damaged/train/*/*.jpg; do cp garbage.jpg "$image"; done
complains "nothing but damaged images" 65 "damaged" "$lipsgrad" train tiny.toml --set data.path=damaged --set data.batch_size=8 --run r11
complains "data verify" 1 "damaged" "$lipsgrad" data verify damaged

# --- runs, checkpoints, weights
refuses "a run folder that holds a run" 73 "--resume" "$lipsgrad" train tiny.toml --run good-run
refuses "a run folder that is a file" 73 "zero.jpg" "$lipsgrad" train tiny.toml --run zero.jpg
refuses "resuming what is not there" 66 "nothing" "$lipsgrad" train --resume --run nothing
refuses "evaluating what is not there" 66 "nothing" "$lipsgrad" eval nothing --weights "$weights"
refuses "inspecting what is not there" 66 "nothing" "$lipsgrad" inspect nothing
refuses "a report of what is not there" 66 "nothing" "$lipsgrad" report nothing
complains "a checkpoint of another model" 65 "another model" "$lipsgrad" train --resume --run good-run --set parts.tau=3
refuses "weights of another model" 65 "another model" "$lipsgrad" eval tiny.toml --weights "$weights" --set model.embed_dim=16
cp -r good-run cut-run
truncate -s 5000 cut-run/checkpoints/*/model.safetensors
refuses "a checkpoint that is cut short" 66 "no complete checkpoint" "$lipsgrad" eval cut-run
refuses "truncated safetensors" 65 "model.safetensors" "$lipsgrad" eval tiny.toml --weights "${weights/good/cut}"
refuses "safetensors of garbage" 65 "garbage.jpg" "$lipsgrad" eval tiny.toml --weights garbage.jpg
refuses "safetensors of nothing" 65 "zero.jpg" "$lipsgrad" eval tiny.toml --weights zero.jpg
cp -r good-run flipped-run
for file in flipped-run/checkpoints/*/model.safetensors; do
  printf '\x7f' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 9)) conv=notrunc status=none
done
refuses "a changed byte in a checkpoint" 65 "is damaged" "$lipsgrad" eval flipped-run
complains "and on resuming" 65 "is damaged" "$lipsgrad" train --resume --run flipped-run --set schedule.epochs=3

# --- the disk
mkdir full
if mount -t tmpfs -o size=300k none full 2>/dev/null; then
  mounted=$scratch/full
  complains "a disk that fills up" 74 "full/run" "$lipsgrad" train tiny.toml --set schedule.epochs=2000 --run full/run
  umount full && mount -t tmpfs -o size=1m none full
  head -c 2m /dev/zero >full/ballast 2>/dev/null
  complains "a disk that is full" 74 "full/run" "$lipsgrad" train tiny.toml --run full/run
  rm full/ballast
  works "and room again" "$lipsgrad" train tiny.toml --run full/run
  umount full && mounted=
else
  skip "a full disk: mounting a small tmpfs is not permitted here"
fi

mkdir locked && chmod 555 locked
nobody=()
if [ "$(id -u)" -eq 0 ]; then
  nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  chmod 755 "$scratch"
  cp "$lipsgrad" binary   # where anybody can reach it
  lipsgrad=$scratch/binary
fi
if [ "$(id -u)" -ne 0 ] || "${nobody[@]}" "$lipsgrad" --help >/dev/null 2>&1; then
  refuses "no permission to write" 73 "permission" "${nobody[@]}" "$lipsgrad" train tiny.toml --run locked/run
  refuses "no permission to write a report" 73 "permission" "${nobody[@]}" "$lipsgrad" report good-run --output locked/report.html
  touch secret.toml && chmod 000 secret.toml
  refuses "no permission to read" 66 "secret.toml" "${nobody[@]}" "$lipsgrad" summary secret.toml
else
  skip "no permission to write: no other user can be taken on here"
fi

summary "bad input"
