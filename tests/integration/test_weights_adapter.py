"""A run that trains an adapter: the trainer as a process, its two streams over sockets, a relay, and PEFT's layout.

The base goes once and the adapter's versions are small; what a receiver makes of both is what the checkpoint holds.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import grpc
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

from perilune.channel import GRPC_OPTIONS
from perilune.runtime.bus import Bus
from perilune.weights.adapted import STREAM, AdaptedReceiver
from perilune.weights.receiver import Receiver, StagedVersion
from perilune.weights.relay import Relay
from perilune.weights.store import VersionStore
from tests.integration.test_trainer import Master, serving, short_recipe, trainer_process

PATIENCE_S = 180
ADAPTER = {"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}


async def test_a_run_that_trains_an_adapter(tmp_path: Path, nats_url: str, bus: Bus) -> None:
    """Killed once: what is made again are the same versions."""
    home = tmp_path / "home"
    master = Master(short_recipe(adapter=ADAPTER), hold_at=2)
    async with serving(master) as address:
        with trainer_process(home, nats_url, address) as process:
            await master.until(lambda: 2 in master.requested)
            held = await newest(master.trainer_address)
            process.kill()
        master.hold_at = None
        with trainer_process(home, nats_url, address):
            await master.until(lambda: master.ended)
            last = await newest(master.trainer_address)
    versions = [commit.version.policy for commit in master.committed]
    assert len({version.digest for version in versions}) == len(versions)
    assert held.manifest.version == versions[2]
    assert last.manifest.version == versions[-1]
    check_checkpoint(last, master.committed[-1].model_path)
    VersionStore(home / "run" / "versions").export(versions[-1].number, tmp_path / "adapter")
    check_export(tmp_path / "adapter", master.committed[-1].model_path)


def check_checkpoint(version: StagedVersion, path: str) -> None:
    """The checkpoint is a model of its own, with the adapter merged in."""
    expected = AutoModelForCausalLM.from_pretrained(path).state_dict()
    for raw in version.tensors:
        found = torch.frombuffer(raw.data, dtype=torch.float32).reshape(raw.shape)
        torch.testing.assert_close(found, expected[raw.name])
    first = AutoModelForCausalLM.from_pretrained(str(Path(path).parent / "v000000")).state_dict()
    changed = {name for name, tensor in expected.items() if not torch.equal(tensor, first[name])}
    assert changed == {name for name in expected if "q_proj" in name or "down_proj" in name}


def check_export(folder: Path, path: str) -> None:
    """PEFT finds the base, which was warmed up first, and computes what the checkpoint does."""
    tokens = torch.tensor([[4, 9, 6, 11]])
    with torch.no_grad():
        found = AutoPeftModelForCausalLM.from_pretrained(folder)(tokens).logits
        expected = AutoModelForCausalLM.from_pretrained(path)(tokens).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


async def newest(trainer_address: str) -> StagedVersion:
    """What a worker behind a relay makes of the run's two streams."""
    relay = Relay()
    server = grpc.aio.server(options=GRPC_OPTIONS)
    relay.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    above = relay.policy_receiver("run", "relay", is_adapted=True)
    above.move([trainer_address])

    async def pass_on() -> None:
        async with aclosing(above.versions()) as versions:
            async for _ in versions:
                pass

    passing = asyncio.create_task(pass_on())
    adapter = Receiver("run", "eyes", STREAM)
    receiver = AdaptedReceiver(Receiver("run", "eyes"), adapter)
    receiver.move([f"127.0.0.1:{port}"])
    async with asyncio.timeout(PATIENCE_S), aclosing(receiver.versions()) as versions:
        version = await anext(versions)
    assert adapter.state is not None
    assert adapter.state.manifest.num_bytes < sum(raw.data.nbytes for raw in version.tensors) / 5
    passing.cancel()
    await asyncio.gather(passing, return_exceptions=True)
    await server.stop(None)
    return version
