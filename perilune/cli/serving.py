"""Turning this process into a service."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from perilune.local.home import exclusive_home, find_nats_server, services_root, write_nats_config

NATS_LISTEN = "127.0.0.1:4222"


def exec_module(module: str, arguments: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Becomes `python -m module`. MissingDependencyError where the services are not installed."""
    path = os.pathsep.join(filter(None, [str(services_root()), os.environ.get("PYTHONPATH")]))
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], os.environ | env | {"PYTHONPATH": path})


def exec_nats() -> NoReturn:
    """Becomes a NATS server that stores in the home, and keeps the home's lock for as long as it runs.

    Raises:
        InvalidInputError: it would be open to others without authentication.
        StateError: a cluster of this home runs its own.
        MissingDependencyError: there is no nats-server.
    """
    from perilune.errors import InvalidInputError
    from perilune.runtime.service import ServiceSettings, is_loopback

    os.environ.setdefault("PERILUNE_LISTEN", NATS_LISTEN)
    settings = ServiceSettings()
    if not is_loopback(settings.listen.rpartition(":")[0]) and not settings.allow_unauthenticated:
        raise InvalidInputError(
            f"nats would listen on {settings.listen} with no authentication; listen on 127.0.0.1, "
            "or accept it with PERILUNE_ALLOW_UNAUTHENTICATED=1"
        )
    server, home = find_nats_server(), settings.home.resolve()
    with exclusive_home(home) as lock:
        os.set_inheritable(lock, True)
        config = write_nats_config(home, settings.listen)
        sys.stdout.flush()
        os.execv(server, [str(server), "-c", str(config)])
