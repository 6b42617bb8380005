#!/usr/bin/env bash
# kernel_report.sh [FILE.cu...]: compiles the kernels with nvcc for sm_80 and sm_90a and says what they use: registers, static shared
# memory, spilled bytes. Without files it takes all of the project and writes the table into docs/kernels.md; with files it prints it.
#
# Needs no GPU. NVCC names the compiler, JOBS=N compiles N files at a time. Fails where a file does not compile or a hot kernel spills.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
command -v "$nvcc" >/dev/null || { echo "kernel_report.sh: nvcc is not here; NVCC=/path/to/nvcc names it" >&2; exit 69; }
page=docs/kernels.md
hot='window_attention_mma|gemm_mma|symmetric_products|depthwise|residual_norm|flat'   # where a spill costs a step's time
architectures=(80 90a)

files=("$@")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(find engine train -name '*.cu' | sort)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the assembler says of one file for one architecture.
compile() {
  local file=$1 architecture=$2
  local out=$work/$(basename "$file" .cu).$architecture
  if "$nvcc" -std=c++20 -arch="sm_$architecture" -O3 --expt-relaxed-constexpr -w -I. -Xcompiler -fopenmp -Xptxas -v -cubin "$file" \
      -o "$out.cubin" >"$out.log" 2>&1; then
    c++filt <"$out.log" | awk -v file="$(basename "$file")" -v architecture="$architecture" '
      /Compiling entry function/ {
        name = $0; sub(/.*entry function ./, "", name); sub(/. for .sm_.*/, "", name)
        gsub(/\(anonymous namespace\)::/, "", name); sub(/\(.*/, "", name); sub(/^void /, "", name); gsub(/[a-z_]+::/, "", name)
        gsub(/ >/, ">", name)
      }
      /spill stores/ { match($0, /[0-9]+ bytes spill stores/); stores = substr($0, RSTART) + 0
                       match($0, /[0-9]+ bytes spill loads/); loads = substr($0, RSTART) + 0 }
      / Used / { match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5) + 0
                 shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART) + 0 : 0
                 print file "\t" name "\t" architecture "\t" registers "\t" shared "\t" stores "\t" loads }' >"$out.rows"
  else
    echo "kernel_report.sh: $file does not compile for sm_$architecture:" >&2
    cat "$out.log" >&2
    return 1
  fi
}
export -f compile
export work nvcc
for architecture in "${architectures[@]}"; do
  for file in "${files[@]}"; do echo "$file $architecture"; done
done | xargs -P "${JOBS:-1}" -n 2 bash -c 'compile "$0" "$1"'

# Kernels written by hand have a row each; those that map.h makes of functors have one a file, which is that of the hungriest. f64, which
# only checks gradients, is left out.
table() {
  echo "| file | kernel | registers sm_80, sm_90a | static shared memory | spill stores, loads |"
  echo "|---|---|---|---|---|"
  cat "$work"/*.rows | grep -v double | awk -F '\t' '
    { name = $2; if (name ~ /^map_/) sub(/<.*/, " (largest)", name)
      row = $1 " | `" name "`"; rows[row] = 1
      if ($4 > registers[row, $3]) registers[row, $3] = $4
      if ($5 > shared[row]) shared[row] = $5
      if ($6 > stores[row]) stores[row] = $6
      if ($7 > loads[row]) loads[row] = $7 }
    END { for (row in rows)
            printf "| %s | %d, %d | %d | %d, %d |\n", row, registers[row, "80"], registers[row, "90a"], shared[row], stores[row], loads[row] }' |
    sort
}
if [ $# -gt 0 ]; then
  table
else
  { sed '/^| file | kernel |/,$d' "$page"; table; } >"$work/page"
  cp "$work/page" "$page"
fi

if table | grep -E "$hot" | grep -vE '\| 0, 0 \|$' >&2; then
  echo "kernel_report.sh: these hot kernels spill registers" >&2
  exit 1
fi
