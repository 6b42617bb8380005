# checks.sh: what the scripts that check the built binary share; sourced by them. They run in a scratch folder that goes when they end.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lipsgrad=$root/build/lipsgrad
[ -x "$lipsgrad" ] || { echo "build/lipsgrad is missing: scripts/build.sh makes it"; exit 1; }

passed=0 failed=0 skipped=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

# verdict WHAT PROBLEM LOG: no problem is a pass; else the end of the log is shown.
verdict() {
  if [ -z "$2" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $1: $2"
    tail -n 20 "$3" | sed 's/^/    /'
  fi
}

skip() {
  skipped=$((skipped + 1))
  echo "skipped: $1"
}

# golden NAME: that image, byte by byte from its hexadecimal line.
golden() { printf "$(awk -v name="$1" '$1 == name { print $6 }' "$root/tests/golden/images.txt" | sed 's/../\\x&/g')"; }

# The smallest LipsFormer on the image folder "good": the sections of a recipe, to which the script adds its own.
tiny_recipe() {
  cat <<'TOML'
preset = "lipsformer_swin_tiny_bounded"
[model]
img_size = 8
patch_size = 2
in_chans = 1
num_classes = 2
embed_dim = 8
depths = [1, 1]
num_heads = [1, 2]
window_size = 2
drop_path_rate = 0.3
[augment]
auto_augment = "none"
mean = [0.5]
std = [0.25]
TOML
}

# summary NAME: the last line, and whether all is well.
summary() {
  echo "$1: $passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}
