#!/bin/sh
# Sees to the programs prometheus and promtool: on PATH, or else in .venv/bin, unpacked from
# Debian's package. Unpacked, not installed: that takes no root and starts no service.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'prometheus: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }

PATH="$PATH:$(pwd)/.venv/bin"
! have || exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  die "prometheus and promtool are not on PATH, and there is no apt-get to fetch them: install Prometheus 2.42 or later"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
say "fetching Debian's package"
[ "$(id -u)" -ne 0 ] || apt-get update -qq >/dev/null 2>&1 || true
(cd "$folder" && apt-get download -qq prometheus >/dev/null 2>&1) ||
  die "prometheus and promtool are not on PATH, and apt-get cannot fetch them: install Prometheus 2.42 or later"
dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb |
  tar -x -C "$folder" ./usr/bin/prometheus ./usr/bin/promtool
install "$folder/usr/bin/prometheus" "$folder/usr/bin/promtool" .venv/bin
have || die "what apt-get fetched does not run here"
