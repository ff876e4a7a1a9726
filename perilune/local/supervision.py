"""Says how child processes are kept alive: which settings reach them, when they are started again, and when not."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

MAX_DEATHS, DEATHS_WINDOW_S = 5, 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
WRONG_SETTINGS = 2  # the exit status by which a service says that a restart would not help

# Settings of one process that its children would take for their own: an address that only one can listen on, a name
# that only one can have, a mode that the others do not know. Each child gets its own from its supervisor.
OWN = frozenset(
    f"PERILUNE_{name}"
    for name in (
        *("LISTEN", "HTTP_LISTEN", "ADVERTISE"),
        *("READY_FILE", "EXIT_WITH_PARENT", "WORKER_ID"),
        *("READ_ONLY", "RECORD_ONLY", "SERVE_RUNS"),
    )
)
# Settings that are meant for some services, and would change or stop the others.
MEANT_FOR = {
    "PERILUNE_METRICS_HOST": ("master",),
    "PERILUNE_METRICS_PORT": ("master",),  # one page a port; the master's has the run, its queues and its workers
    "PERILUNE_HYBRID": ("trainer", "rollout"),
    "PERILUNE_DATABASE_URL": ("master",),
    "PERILUNE_DATABASE_PASSWORD_FILE": ("master",),
    "PERILUNE_PLUGINS": ("reward",),
}
TLS = ("PERILUNE_TLS_CA", "PERILUNE_TLS_SERVER_NAME", "PERILUNE_TLS_CLIENT_CA")


def inherited(environ: Mapping[str, str], service: str) -> dict[str, str]:
    """The variables that a child of this machine's cluster takes over from the process that starts it.

    >>> inherited({"PERILUNE_LISTEN": "127.0.0.1:1", "PERILUNE_KV_CACHE_GIB": "2"}, "rollout")
    {'PERILUNE_KV_CACHE_GIB': '2'}
    """
    return {name: value for name, value in environ.items() if _reaches(name.upper(), service, environ)}


def _reaches(name: str, service: str, environ: Mapping[str, str]) -> bool:
    if name in TLS:  # without a certificate the cluster's services speak plain text, to each other on loopback alone
        return "PERILUNE_TLS_CERT" in environ
    return service in MEANT_FOR[name] if name in MEANT_FOR else name not in OWN


def reason_to_give_up(status: int, deaths: Sequence[float], now: float, worked_at: float | None = None) -> str | None:
    """Tests whether a child that died is beyond help, and why.

    Args:
        status: its exit status; negative for a signal.
        deaths: the times of all its deaths, this one too, in seconds of one clock.
        now: the time of that clock.
        worked_at: when it last finished a piece of work; deaths before then count no more, however far apart.
    """
    if status == WRONG_SETTINGS:
        return "was given wrong settings"
    last = f"the last time {describe_exit(status)}"
    num_recent = sum(now - death <= DEATHS_WINDOW_S for death in deaths)
    if num_recent > MAX_DEATHS:
        return f"died {num_recent} times within a minute, {last}"
    num_idle = num_deaths_without_work(deaths, worked_at)
    if num_idle > MAX_DEATHS:
        return f"died {num_idle} times without finishing any work in between, {last}"
    return None


def num_deaths_without_work(deaths: Sequence[float], worked_at: float | None) -> int:
    """Deaths since a piece of work was last finished."""
    return sum(worked_at is None or death > worked_at for death in deaths)


def pause_s(num_idle_deaths: int) -> float:
    """Seconds before the next start: twice as long after each death without work, half a minute at most.

    >>> pause_s(1), pause_s(3), pause_s(20)
    (0.25, 1.0, 30.0)
    """
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(num_idle_deaths - 1, 10))


def describe_exit(status: int) -> str:
    """An exit status in words; negative ones are signals.

    >>> describe_exit(-9)
    'by SIGKILL'
    """
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


def restart_notice(name: str, status: int, num_idle_deaths: int, log: object) -> str:
    """Returns what is said when a child is started again; a repetition is named as one."""
    repeated = f" ({num_idle_deaths} times now without finishing any work)" if num_idle_deaths > 1 else ""
    pause = pause_s(num_idle_deaths)
    when = f" in {pause:g} s" if pause >= 1 else ""
    return f"{name} ended {describe_exit(status)}{repeated}; starting it again{when} (log: {log})"
