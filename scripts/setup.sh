#!/usr/bin/env bash
# setup.sh: installs the Debian packages that lipsgrad needs and that are missing.
#
# With none missing it does nothing, at once, and needs neither root nor sudo.
set -euo pipefail

# third_party/README.md says what each is for.
packages=(
  g++ cmake ninja-build ccache pkg-config
  libdnnl-dev libopenmpi-dev openmpi-bin libjpeg62-turbo-dev libstb-dev zlib1g-dev
  libcli11-dev libtomlplusplus-dev libfmt-dev nlohmann-json3-dev
  doctest-dev libbenchmark-dev
  libcairo2-dev fonts-dejavu-core
  libjs-dygraphs dataset-fashion-mnist
)

give_up() { echo "setup.sh: $*" >&2; exit 1; }

command -v dpkg-query >/dev/null ||
  give_up "this is not a Debian system; install the counterparts of: ${packages[*]}; then run scripts/build.sh"

states=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
  grep -qxF "$package installed" <<<"$states" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    give_up "needs root or sudo to install; ask for: apt-get install ${missing[*]}"
  as_root=(sudo)
  [ -t 0 ] || as_root=(sudo -n)      # nobody is there to type a password
  "${as_root[@]}" true 2>/dev/null ||
    give_up "sudo refused; ask for: apt-get install ${missing[*]}"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@" \
    >>"$log" 2>&1 </dev/null
}

echo "Installing: ${missing[*]}"
apt update || echo "setup.sh: apt-get update failed; trying with the lists that are there" >&2
apt install -y --no-install-recommends "${missing[@]}" || {
  tail -n 20 "$log" >&2
  give_up "apt-get could not install: ${missing[*]}"
}
