"""One rank of a trainer that is made of two; the test is the fleet.

Two policies, each laid out over the ranks in another way: FSDP2, which gives each rank some rows of every tensor, and
tensor parallelism, which gives it rows or columns of matrices. Each takes two steps, and after each step the rank
streams what it holds. Says where, and what the whole is; ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import grpc
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from perilune.channel import GRPC_OPTIONS
from perilune.models.tensors import raw_tensor
from services.trainer.policy.model import Policy
from services.trainer.ranks.group import Ranks
from services.trainer.versions.publisher import Publisher
from services.trainer.versions.rank_version import rank_snapshot
from tests.unit.trainer.models import tiny_policy

LAYOUTS = ("fsdp", "tensor-parallel")
NUM_VERSIONS = 3
LEARNING_RATE = 1e-5


def laid_out(layout: str) -> Policy:
    policy = tiny_policy()
    model = policy.model
    model.set_attn_implementation("eager")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    if layout == "fsdp":
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    else:
        for layer in model.model.layers:
            plan = {"gate_proj": ColwiseParallel(), "up_proj": ColwiseParallel(), "down_proj": RowwiseParallel()}
            parallelize_module(layer.mlp, mesh, plan)
    return policy


def step(policy: Policy, optimizer: torch.optim.Optimizer, number: int) -> None:
    tokens = torch.randint(3, 40, (2, 24), generator=torch.Generator().manual_seed(number))
    policy.model(tokens, labels=tokens, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def whole(policy: Policy) -> dict[str, str]:
    """The bytes of the whole tensors, gathered by torch itself."""
    gathered = {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in policy.model.state_dict().items()
        if name != "lm_head.weight"  # tied
    }
    return {name: bytes(raw_tensor(name, tensor.bfloat16()).data).hex() for name, tensor in gathered.items()}


async def main(folder: Path) -> None:
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=num_ranks)
    ranks = Ranks(rank, num_ranks)
    torch.set_num_threads(1)
    publisher = Publisher()
    server = grpc.aio.server(options=GRPC_OPTIONS)
    publisher.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    contents = {}
    for layout in LAYOUTS:
        publisher.open(layout)
        policy = laid_out(layout)
        optimizer = torch.optim.AdamW(policy.model.parameters(), lr=LEARNING_RATE)
        version = None
        for number in range(NUM_VERSIONS):
            if number:
                step(policy, optimizer, number)
            version = rank_snapshot(policy, number, torch.bfloat16, ranks, before=version)
            publisher.publish(layout, version)
        contents[layout] = whole(policy)
    said = {"address": f"127.0.0.1:{port}", "contents": contents}
    target = folder / f"rank-{rank}.json"
    target.with_suffix(".writing").write_text(json.dumps(said))
    target.with_suffix(".writing").rename(target)
    await asyncio.to_thread(sys.stdin.read)
    dist.destroy_process_group()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(Path(os.environ["RANKS_FOLDER"])))
