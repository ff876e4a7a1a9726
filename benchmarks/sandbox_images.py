"""A job in an image: ours, which lays an overlay into the slot it has, against crun and `docker run` of the same image.

Every start gets a fresh overlay with its upper layer in memory, no network, and runs a Python `pass`. crun gets what it
needs and no more: namespaces, a read-only image below a tmpfs, no control group. Medians of interleaved rounds.

    python -m benchmarks.sandbox_images [--rounds 20] [--image python:3.11-slim] [--json FILE]

Needs root, docker with the image, and crun; overlays are mounted in mount namespaces that end with their command.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.report import Figure, report
from perilune.client import AsyncSandboxClient
from perilune.local.short_lived import own_sandbox
from services.sandbox.images.store import ImageStore
from services.sandbox.job import Image

NAME = "bench"
# In a mount namespace of the command's own. crun 1.8 fails where version 2 of control groups lies beside version 1.
CRUN = """
umount /sys/fs/cgroup/unified 2>/dev/null
mount -t tmpfs -o size=64m upper {bundle}/upper && mkdir {bundle}/upper/upper {bundle}/upper/work
mount -t overlay -o lowerdir={root},upperdir={bundle}/upper/upper,workdir={bundle}/upper/work image {bundle}/rootfs
exec crun --root {bundle}/state --cgroup-manager=disabled run --bundle {bundle} {name}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--image", default="python:3.11-slim")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perilune-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        archive = Path(folder, "image.tar")
        subprocess.run(["docker", "save", "-o", str(archive), options.image], check=True)
        image = ImageStore(Path(folder, "images")).add(NAME, archive)
        figures = asyncio.run(measure(image, make_bundle(Path(folder, "bundle")), options.image, options.rounds))
    report("Sandbox: one Python job in an image", figures, options.json)


async def measure(image: Image, bundle: Path, tag: str, rounds: int) -> dict[str, Figure]:
    os.environ["PERILUNE_SANDBOX_IMAGES"] = str(image.root.parents[1])
    async with own_sandbox(num_slots=1) as address, AsyncSandboxClient(address) as sandbox:

        async def ours(name: str) -> None:
            answer = await sandbox.run("python", "pass", image=name)
            assert answer.verdict == 1, answer

        crun = CRUN.format(bundle=bundle, root=image.root, name=NAME)
        docker = ["docker", "run", "--rm", "--network=none", "--user=1000", tag, "python3", "-c", "pass"]
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "in an image": lambda: ours(NAME),
            "without an image (warm)": lambda: ours(""),
            "crun": lambda: start(["unshare", "--mount", "sh", "-c", crun]),
            "docker run": lambda: start(docker),
        }
        taken = await interleaved(ways, rounds)
    mine, warm = taken["in an image"] * 1000, taken["without an image (warm)"] * 1000
    return {
        "in an image": Figure(mine, "ms"),
        "against crun": Figure.against(taken["crun"] * 1000, mine, "ms"),
        "against docker run": Figure.against(taken["docker run"] * 1000, mine, "ms"),
        "against no image (warm)": Figure.against(warm, mine, "ms"),
    }


def make_bundle(folder: Path) -> Path:
    for name in ("rootfs", "upper", "state"):
        (folder / name).mkdir(parents=True)
    subprocess.run(["crun", "spec"], cwd=folder, check=True)
    path = folder / "config.json"
    spec = json.loads(path.read_text())
    spec["process"] |= {"terminal": False, "args": ["python3", "-c", "pass"], "user": {"uid": 1000, "gid": 1000}}
    spec["mounts"] = [mount for mount in spec["mounts"] if "cgroup" not in mount["type"]]
    spec["linux"]["namespaces"] = [space for space in spec["linux"]["namespaces"] if space["type"] != "cgroup"]
    del spec["linux"]["resources"]
    path.write_text(json.dumps(spec))
    return folder


async def start(argv: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, argv


async def interleaved(ways: dict[str, Callable[[], Awaitable[None]]], rounds: int) -> dict[str, float]:
    """The median seconds of each way; a first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            await way()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
