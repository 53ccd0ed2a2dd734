#!/bin/sh
# Sets up .venv in the checkout from a lock: one command from a clean clone, no root, no network
# address of ours. usage: bootstrap.sh [cpu|gpu]
set -eu
cd "$(dirname "$0")/.."
extra=${1:-cpu}
lock=config/requirements/$extra.lock
python=${PYTHON:-python3}
needed_mib=4096

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

command -v "$python" >/dev/null 2>&1 || die "no $python on PATH: install Python 3.11, 3.12 or 3.13, or set PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' ||
  die "needs Python 3.11, 3.12 or 3.13, found $("$python" --version 2>&1): set PYTHON=/path/to/python3.11"
[ -f "$lock" ] || die "no lock file $lock"

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then  # none, or one that was left half made
  free_mib=$(df -Pm . | awk 'NR==2 {print $4}')
  [ "$free_mib" -ge "$needed_mib" ] || die "needs $needed_mib MiB of free disk in $(pwd), found $free_mib MiB"
  say "creating .venv with $("$python" --version 2>&1)"
  "$python" -m venv --clear .venv >&2 || die "cannot create a virtual environment: on Debian, apt-get install python3-venv"
fi
venv_python=$(pwd)/.venv/bin/python
uv="$(pwd)/.venv/bin/uv"
"$venv_python" -m pip install -q --disable-pip-version-check uv==0.13.9 || die "pip could not install uv"

if [ "$extra" = cpu ] && ! "$venv_python" -c 'import torch' 2>/dev/null; then
  # pip first: a machine whose pip is configured with a local wheel finds it; elsewhere uv knows
  # PyTorch's own CPU index by name.
  torch=$(grep '^torch==' "$lock")
  say "installing $torch"
  "$venv_python" -m pip install -q --disable-pip-version-check --no-deps --no-compile "$torch" 2>/dev/null ||
    "$uv" pip install -q --python "$venv_python" --no-deps --torch-backend cpu "$torch" ||
    die "cannot install $torch: neither pip nor PyTorch's CPU index has it"
fi
say "installing $(grep -c . "$lock") locked packages (about half a minute on a first run)"
"$uv" pip install -q --python "$venv_python" --no-deps -r "$lock" || die "cannot install the packages of $lock"
"$uv" pip install -q --python "$venv_python" --no-deps --no-build-isolation -e . || die "cannot install this checkout"
if [ "$extra" = cpu ] && ! "$venv_python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
  die "vLLM's CPU library needs libnuma.so.1: on Debian and Ubuntu, apt-get install libnuma1"
fi
say "done"
