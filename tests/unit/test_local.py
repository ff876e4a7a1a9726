"""The one-machine cluster: decisions by hand, then real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from perilune.errors import InvalidInputError, StateError, UnavailableError
from perilune.local import local_cluster, reason_to_give_up
from perilune.local.children import threads_of
from perilune.local.home import exclusive_home, free_ports, master_of, page_address, write_nats_config
from perilune.local.short_lived import reading_master
from perilune.local.supervision import inherited, pause_s, restart_notice

pytestmark = pytest.mark.slow  # trains, or starts services and processes


def test_wrong_settings_are_given_up_at_once_and_other_deaths_after_six_within_a_minute() -> None:
    assert reason_to_give_up(2, [10.0], 10.0) == "was given wrong settings"
    assert reason_to_give_up(1, [10.0], 10.0) is None
    assert reason_to_give_up(-9, [0, 1, 2, 3, 4], 4.0) is None
    assert reason_to_give_up(-9, [0, 1, 2, 3, 4, 5], 5.0) == "died 6 times within a minute, the last time by SIGKILL"
    assert reason_to_give_up(-9, [0, 1, 2, 3, 4, 5], 5.0, worked_at=4.5) is not None


@pytest.mark.parametrize("apart_s", [13, 20, 300, 7200])
def test_deaths_without_work_in_between_are_given_up_however_far_apart(apart_s: float) -> None:
    deaths = [i * apart_s for i in range(6)]
    said = "died 6 times without finishing any work in between, the last time with status 1"
    assert reason_to_give_up(1, deaths, deaths[-1]) == said
    assert reason_to_give_up(1, deaths[:5], deaths[4]) is None
    assert reason_to_give_up(1, deaths, deaths[-1], worked_at=deaths[0] + 1) is None
    assert reason_to_give_up(1, [*deaths, 6 * apart_s], 6 * apart_s, worked_at=deaths[0] + 1) == said


def test_restarts_back_off_and_a_repetition_is_named() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 4, 5, 8, 100)] == [0.25, 0.5, 1, 2, 4, 30, 30]
    assert restart_notice("rollout-1", -9, 1, "x.log") == "rollout-1 ended by SIGKILL; starting it again (log: x.log)"
    assert restart_notice("rollout-1", 1, 4, "x.log") == (
        "rollout-1 ended with status 1 (4 times now without finishing any work); starting it again in 2 s (log: x.log)"
    )


def test_a_child_takes_over_what_is_meant_for_it_and_nothing_of_its_starters_own() -> None:
    given = {
        "HOME": "/root",
        "PERILUNE_HTTP_LISTEN": "127.0.0.1:7",
        "PERILUNE_LISTEN": "127.0.0.1:8",
        "perilune_advertise": "me:9",
        "PERILUNE_METRICS_PORT": "9464",
        "PERILUNE_READ_ONLY": "1",
        "PERILUNE_RECORD_ONLY": "1",
        "PERILUNE_HYBRID": "/dev/shm/x",
        "PERILUNE_PLUGINS": "{}",
        "PERILUNE_KV_CACHE_GIB": "2",
        "PERILUNE_DATABASE_URL": "postgresql+asyncpg://x",
        "PERILUNE_TLS_CA": "ca.pem",
    }
    shared = {"HOME", "PERILUNE_KV_CACHE_GIB"}
    assert inherited(given, "master").keys() == shared | {"PERILUNE_METRICS_PORT", "PERILUNE_DATABASE_URL"}
    assert inherited(given, "trainer").keys() == shared | {"PERILUNE_HYBRID"}
    assert inherited(given, "rollout").keys() == shared | {"PERILUNE_HYBRID"}
    assert inherited(given, "reward").keys() == shared | {"PERILUNE_PLUGINS"}
    assert inherited(given, "sandbox").keys() == inherited(given, "nats").keys() == shared
    with_certificate = given | {"PERILUNE_TLS_CERT": "cert.pem"}
    assert inherited(with_certificate, "nats").keys() == shared | {"PERILUNE_TLS_CERT", "PERILUNE_TLS_CA"}


def test_the_pages_address_is_as_it_was_asked_for_or_refused_in_words() -> None:
    with page_address("127.0.0.1:0") as address:
        host, _, port = address.partition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InvalidInputError, match=f"the page cannot be served at {taken}: Address already in use"):
            page_address(taken).__enter__()
    for wrong in ("7080", "localhost", "localhost:http", "127.0.0.1:99999"):
        with pytest.raises(InvalidInputError, match=f"'{wrong}' is not HOST:PORT"):
            page_address(wrong).__enter__()


def test_rollout_and_training_share_the_cores_by_turns() -> None:
    assert [threads_of(s, num_rollouts=2, cores=8) for s in ("trainer", "rollout", "reward", "master")] == [8, 4, 1, 1]
    assert threads_of("rollout", num_rollouts=4, cores=2) == 1


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_home_belongs_to_one_at_a_time(tmp_path: Path) -> None:
    with exclusive_home(tmp_path):
        script = "from pathlib import Path; from perilune.local.cluster import exclusive_home\n"
        script += f"with exclusive_home(Path({str(tmp_path)!r})): pass"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
        assert f"another perilune (process {os.getpid()}) works in {tmp_path}" in done.stderr
    with exclusive_home(tmp_path):
        pass


def test_a_child_keeps_the_home_until_it_ends(tmp_path: Path) -> None:
    """As the children of a killed launcher do, for the moment that they need to notice."""
    with exclusive_home(tmp_path) as lock:
        child = subprocess.Popen(["sleep", "0.5"], pass_fds=[lock])
    (tmp_path / "services" / "lock").write_text(str(finished_pid()))
    with exclusive_home(tmp_path):
        assert child.wait(timeout=0.3) == 0


def finished_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_master_is_found_only_while_it_lives_and_answers(tmp_path: Path) -> None:
    ready = tmp_path / "services" / "master.json"
    assert master_of(tmp_path) is None
    ready.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ready.write_text(json.dumps({"address": address, "pid": os.getpid()}))
        assert master_of(tmp_path) == address
        ready.write_text(json.dumps({"address": address, "pid": finished_pid()}))
        assert master_of(tmp_path) is None
        ready.write_text(json.dumps({"address": address, "pid": os.getpid(), "parent": os.getppid()}))
        assert master_of(tmp_path) == address
        ready.write_text(json.dumps({"address": address, "pid": os.getpid(), "parent": finished_pid()}))
        assert master_of(tmp_path) is None
    ready.write_text(json.dumps({"address": address, "pid": os.getpid()}))
    assert master_of(tmp_path) is None
    ready.write_text("{")
    assert master_of(tmp_path) is None


def test_the_nats_server_accepts_its_configuration_in_any_folder(tmp_path: Path) -> None:
    home = tmp_path / 'a "quoted" folder'
    config = write_nats_config(home, "127.0.0.1:4222")
    server = Path(sys.executable).with_name("nats-server")
    done = subprocess.run([server, "-c", config, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_dead_child_is_replaced_and_nothing_is_left_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's own settings, of which each could be one child's at most, harm none."""
    page, metrics = free_ports(2)
    monkeypatch.setenv("PERILUNE_HTTP_LISTEN", f"127.0.0.1:{page}")
    monkeypatch.setenv("PERILUNE_ADVERTISE", "nowhere:1")
    monkeypatch.setenv("PERILUNE_METRICS_PORT", str(metrics))
    notices: list[str] = []
    async with local_cluster(tmp_path, num_rollouts=1, notify=notices.append, page=f"127.0.0.1:{page}") as cluster:
        assert cluster.page == f"http://127.0.0.1:{page}/"
        for port in (page, metrics):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        before = cluster.pids
        assert set(before) == {"nats", "master", "trainer", "rollout-1", "reward-1"}
        os.kill(before["nats"], signal.SIGKILL)
        os.kill(before["reward-1"], signal.SIGKILL)

        async def replaced() -> None:
            while not all(cluster.pids.get(name, before[name]) != before[name] for name in ("nats", "reward-1")):
                await asyncio.sleep(0.05)

        await asyncio.wait_for(cluster.run(replaced()), 20)
        assert sorted(notice.partition(";")[0] for notice in notices) == [
            "nats ended by SIGKILL",
            "reward-1 ended by SIGKILL",
        ]
        assert {name: cluster.pids[name] for name in ("master", "trainer")} == {
            name: before[name] for name in ("master", "trainer")
        }
        assert master_of(tmp_path) == cluster.master_address
        pids = set(cluster.pids.values())
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert master_of(tmp_path) is None


async def test_wrong_settings_end_the_cluster_with_the_end_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERILUNE_DATABASE_URL", "nonsense")
    with pytest.raises(InvalidInputError, match=r"master was given wrong settings(.|\n)*'nonsense' cannot be used"):
        async with local_cluster(tmp_path):
            pass


async def test_the_work_on_a_cluster_ends_when_a_child_is_given_up(tmp_path: Path) -> None:
    async with local_cluster(tmp_path, num_rollouts=1) as cluster:
        work = asyncio.create_task(cluster.run(asyncio.sleep(60)))
        while not work.done():
            if pid := cluster.pids.get("reward-1"):
                with contextlib.suppress(ProcessLookupError):  # it is not seen yet that this one is dead
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
        with pytest.raises(UnavailableError, match="reward-1 died 6 times within a minute, the last time by SIGKILL"):
            await work


async def test_a_second_cluster_on_a_home_is_refused(tmp_path: Path) -> None:
    with exclusive_home(tmp_path), pytest.raises(StateError, match="give another folder with --home"):
        async with local_cluster(tmp_path):
            pass


async def test_a_reading_master_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERILUNE_DATABASE_URL", "nonsense")
    with pytest.raises(InvalidInputError, match=r"no master could be started(.|\n)*'nonsense' cannot be used"):
        async with reading_master(tmp_path):
            pass
