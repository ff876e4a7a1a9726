"""Version 2's files, as the kernel documents them, in a folder of our own: what is written to them, and what read."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sandbox.jail import cgroups
from services.sandbox.jail.cgroups import Charge, _CgroupV2, _MakerV2

IDLE = {
    "cgroup.procs": "",
    "memory.max": "",
    "memory.swap.max": "",
    "memory.current": "5000000\n",
    "memory.peak": "90000000\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
    "memory.stat": "anon 4000000\nfile 900000\nkernel 100000\nshmem 800000\nanon_thp 0\n",
    "pids.max": "",
    "pids.current": "1\n",
    "pids.events": "max 4\n",
    "cpu.stat": "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n",
}


def write(folder: Path, **values: str) -> None:
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(value)


@pytest.fixture
def group(tmp_path: Path) -> tuple[Path, _CgroupV2]:
    write(tmp_path, **IDLE)
    return tmp_path, _CgroupV2(tmp_path)


def test_limits_are_beyond_what_the_group_holds(group: tuple[Path, _CgroupV2]) -> None:
    folder, cgroup = group
    cgroup.add(42)
    cgroup.arm(64 << 20, 16)
    read = {name: (folder / name).read_text().strip() for name in ("cgroup.procs", "memory.max", "pids.max")}
    assert read == {"cgroup.procs": "42", "memory.max": f"{5000000 + (64 << 20)}", "pids.max": "17"}
    assert (folder / "memory.swap.max").read_text().strip() == "0"
    assert (folder / "memory.peak").read_text().startswith("reset")


def test_a_job_is_charged_the_difference(group: tuple[Path, _CgroupV2]) -> None:
    folder, cgroup = group
    cgroup.arm(64 << 20, 16)
    write(folder, memory__peak="25000000\n", memory__current="6000000\n", pids__events="max 5\n")
    write(folder, cpu__stat="usage_usec 3250000\n", memory__events="oom 9\noom_kill 3\n")
    assert cgroup.charge() == Charge(0.25, 20_000_000, 1, 1)


def test_a_job_whose_memory_must_stay_is_starved_when_the_limit_is_met_over_and_over(
    group: tuple[Path, _CgroupV2],
) -> None:
    folder, cgroup = group
    cgroup.arm(100_000_000, 16)
    write(folder, memory__events="max 4000\noom_kill 2\n")
    assert not cgroup.is_starved()  # a twentieth of its memory is its own, the rest a cache of files
    write(folder, memory__stat="anon 60000000\nfile 44000000\nshmem 42000000\nanon_thp 50000000\n")
    write(folder, memory__events="max 4100\noom_kill 2\n")
    assert not cgroup.is_starved()  # full, and it seldom wants more
    write(folder, memory__events="max 8000\noom_kill 2\n")
    assert cgroup.is_starved()
    assert not cgroup.is_starved()  # nothing happened since


def test_a_mark_that_cannot_be_set_back_is_read_where_it_rose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class File(cgroups._File):
        def __init__(self, path: Path, writable: bool = False) -> None:
            if path.name == "memory.peak" and writable:
                raise PermissionError(13, "as kernels before 6.12 have it", str(path))
            super().__init__(path, writable)

    monkeypatch.setattr(cgroups, "_File", File)
    write(tmp_path, **IDLE)
    cgroup = _CgroupV2(tmp_path)
    cgroup.arm(1 << 30, 16)
    assert (tmp_path / "memory.peak").read_text() == "90000000\n"
    for held, seen in (("45000000\n", 40_000_000), ("8000000\n", 40_000_000)):  # below the mark: as far as it was seen
        write(tmp_path, memory__current=held)
        assert cgroup.charge().peak_memory_bytes == seen
    write(tmp_path, memory__peak="105000000\n")
    assert cgroup.charge().peak_memory_bytes == 100_000_000
    write(tmp_path, memory__current="5000000\n")
    cgroup.arm(1 << 30, 16)
    assert cgroup.charge().peak_memory_bytes == 0  # the next job's


def test_controllers_are_handed_down_and_our_processes_step_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, cgroup__procs="1\n", cgroup__subtree_control="\n", cgroup__controllers="cpu io memory pids\n")
    monkeypatch.setattr(cgroups, "_own_groups", lambda: {"": "/ours"})
    monkeypatch.setattr(cgroups, "_mounts", lambda kind: {"": ("/ours", tmp_path)})
    maker = _MakerV2()
    beside = tmp_path / cgroups._beside()
    assert (beside / "cgroup.procs").read_text() == "1"
    assert set((tmp_path / "cgroup.subtree_control").read_text().split()) == {"+memory", "+pids", "+cpu"}
    # A second pool of the same process makes its groups beside the first one's.
    monkeypatch.setattr(cgroups, "_own_groups", lambda: {"": f"/ours/{beside.name}"})
    write(tmp_path, cgroup__subtree_control="cpu memory pids\n")
    assert _MakerV2()._parent == maker._parent == tmp_path


def test_missing_controllers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, cgroup__controllers="cpu io\n")
    monkeypatch.setattr(cgroups, "_own_groups", lambda: {"": "/"})
    monkeypatch.setattr(cgroups, "_mounts", lambda kind: {"": ("/", tmp_path)})
    with pytest.raises(cgroups.CgroupUnavailableError, match="has no memory, pids controller"):
        _MakerV2()
