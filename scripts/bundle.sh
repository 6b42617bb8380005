#!/usr/bin/env bash
# bundle.sh [--cuda] [FOLDER]: lipsgrad, its tests of the engine and what they need, in a folder that runs on another x86-64 Linux.
#
# Built for x86-64-v3 (AVX2). The shared libraries that the binaries need go along, except glibc's and those of CUDA, which belong to the driver
# and the toolkit of the machine it runs on; FOLDER/lipsgrad finds them. Recipes and gpu-check.sh go along too.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

cuda=OFF
if [ "${1:-}" = --cuda ]; then
  cuda=ON
  shift
fi
bundle=${1:-bundle}
build=build-bundle-$cuda

cmake -S . -B "$build" -G Ninja -DLIPSGRAD_ARCH=x86-64-v3 -DLIPSGRAD_CUDA=$cuda >/dev/null
cmake --build "$build" --parallel "${JOBS:-$(nproc)}" --target lipsgrad test_engine

if [ -e "$bundle" ] && [ ! -x "$bundle/bin/lipsgrad" ]; then
  echo "bundle.sh: $bundle is there and is no bundle: name another folder, or remove it" >&2
  exit 73
fi
rm -rf "$bundle"
mkdir -p "$bundle/bin" "$bundle/lib"
cp "$build/lipsgrad" "$build/test_engine" "$bundle/bin/"
strip --strip-debug "$bundle"/bin/*
cp -r recipes "$bundle/"
cp scripts/gpu-check.sh bench/torch_step.py LICENSE "$bundle/"

# Left to the machine: the loader, libc and its kin, and CUDA.
stays='^(linux-vdso|ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libutil|libnsl|libanl|libcuda|libcudart|libcublas|libcublasLt|libnccl)\.so'
for binary in "$bundle"/bin/*; do
  ldd "$binary" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
done | sort -u | while read -r library; do
  [[ $(basename "$library") =~ $stays ]] || cp -L "$library" "$bundle/lib/"
done
missing=$(for binary in "$bundle"/bin/*; do ldd "$binary"; done | awk '/not found/ { print $1 }' | sort -u)
[ -z "$missing" ] || echo "bundle.sh: not found here, so not in the bundle: $missing" >&2

for program in lipsgrad test_engine; do
  cat >"$bundle/$program" <<'END'
#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/bin/$(basename -- "$0")" "$@"
END
  chmod +x "$bundle/$program"
done
echo "$bundle: $(du -sh "$bundle" | cut -f1), $(find "$bundle/lib" -type f | wc -l) libraries"
