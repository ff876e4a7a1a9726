#!/usr/bin/env bash
# Installs without a network, then runs benchmarks/gpu.py and recipes/gpu.toml: all that a short time with a card is for.
#   benchmarks/gpu.sh WHEELS OUT [--small]
# WHEELS holds what benchmarks/gpu-wheels.txt lists. WHEELS/vllm, if it is there, holds vLLM's wheel, whole or in parts
# (*.whl.part0, *.whl.part1, …), and the wheels of its own needs; it gets an environment of its own. OUT takes the
# figures, as lines of JSON, and all that was printed. Nothing that fails keeps the rest from being run.
set -u
wheels=$(realpath "$1") out=$(realpath -m "$2") small=${3:-}
cd "$(dirname "$0")/.."
mkdir -p "$out"
exec > >(tee "$out/log.txt") 2>&1

python3 -m venv --system-site-packages "$out/venv"
"$out/venv/bin/pip" install --quiet --no-index --no-deps --find-links "$wheels" -r benchmarks/gpu-wheels.txt
export PYTHONPATH=$PWD

if [ -d "$wheels/vllm" ]; then
  for first in "$wheels"/vllm/*.whl.part0; do
    [ -e "$first" ] && cat "${first%0}"? > "${first%.part0}"
  done
  python3 -m venv --system-site-packages "$out/vllm"
  "$out/vllm/bin/pip" install --quiet --no-index --no-deps "$wheels"/vllm/*.whl
  export PERILUNE_ENGINE_PYTHON=$out/vllm/bin/python
fi

"$out/venv/bin/python" -m benchmarks.gpu $small --json "$out/figures.jsonl"
"$out/venv/bin/python" -m benchmarks.gpu $small --step learn --json "$out/learn.jsonl"
rm -rf "$out/venv" "$out/vllm"
