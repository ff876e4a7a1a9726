#!/usr/bin/env bash
# How the cases here were made: `make.sh PYTHON`, with a Python that has Perilune's requirements. By the commit that 0.1.0
# was released from: a home with two runs of one recipe, `finished` and `stopped` after its second version, and the contract.
set -euo pipefail
python=$(realpath -s "$1") cases=$(realpath "$(dirname "$0")") old=$(mktemp -d)
trap 'git -C "$cases" worktree remove --force "$old"' EXIT
git -C "$cases" worktree add --detach "$old" 47a378c
cd "$old"
export PYTHONPATH=$old
train=("$python" -m perilune train "$cases/recipe.toml" --home "$old/home" --rollouts 1 --no-view)

"${train[@]}" --name finished
"${train[@]}" --name stopped --set trainer.num_iterations=6 &
until [ -d "$old/home/stopped/checkpoints/v000002" ]; do sleep 0.05; done
kill -INT $!
wait $! || true
tar -C home -cJf "$cases/home-0.1.0.tar.xz" --exclude '*.png' --exclude '*.lock' perilune.db finished stopped

"$python" - "$cases/contract-0.1.0.binpb" <<'PYTHON'
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from perilune.api.master.v1 import master_pb2
from perilune.api.reward.v1 import reward_pb2
from perilune.api.rollout.v1 import rollout_pb2
from perilune.api.trajectory.v1 import trajectory_pb2
from perilune.api.weights.v1 import weights_pb2

files = {}


def take(file):
    for needed in file.dependencies:
        take(needed)
    files[file.name] = file


for module in (master_pb2, reward_pb2, rollout_pb2, trajectory_pb2, weights_pb2):
    take(module.DESCRIPTOR)
contract = FileDescriptorSet()
for file in files.values():
    file.CopyToProto(contract.file.add())
Path(sys.argv[1]).write_bytes(contract.SerializeToString())
PYTHON
