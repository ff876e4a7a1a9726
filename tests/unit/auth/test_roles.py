"""Roles and RPCs: the table of the docs is what the protos say, and what the gate does, of every service."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

import perilune.api
from perilune.errors import PermissionDeniedError
from perilune.runtime.auth import Caller, digest_of
from perilune.runtime.roles import KINDS, ROLES, roles_of
from perilune.runtime.service import Service, ServiceSettings

SECURITY = Path(__file__).parents[3] / "docs" / "security.md"
SERVICES = ("trainer", "rollout", "reward-worker", "relay", "master")
CHANGES_RUNS = ("SubmitRun", "StopRun", "ResumeRun")


def methods() -> Iterator[MethodDescriptor]:
    """Those of every service in our protos."""
    for module in pkgutil.walk_packages(perilune.api.__path__, "perilune.api."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                yield from service.methods


METHODS = {f"{each.containing_service.full_name}/{each.name}": each for each in methods()}


def table() -> str:
    """As docs/security.md has it."""
    columns = [role for role in ROLES if role != "admin"]
    lines = ["| RPC | " + " | ".join(columns) + " |", "| --- |" + " :-: |" * len(columns)]
    for name, method in sorted(METHODS.items()):
        short = name.removeprefix("perilune.api.").replace(".v1.", ".")
        cells = ["x" if role in roles_of(method) else "" for role in columns]
        lines.append(f"| `{short}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_of_the_docs_is_that_of_the_protos() -> None:
    assert table() in SECURITY.read_text()


def test_every_rpc_names_its_roles() -> None:
    assert len(METHODS) > 30
    assert [name for name, method in METHODS.items() if len(roles_of(method)) < 2] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_covers_what_its_rpcs_say_and_no_more(role: str) -> None:
    caller = Caller("c", frozenset({role}))
    for name, method in METHODS.items():
        if role in roles_of(method):
            with caller.call(name):
                continue
        with pytest.raises(PermissionDeniedError, match=r"which do not cover .*: it wants admin"), caller.call(name):
            pass
    for unknown in ("perilune.api.master.v1.RunService/DropRun", "other.Service/Call", "", "/"):
        if role != "admin":
            with pytest.raises(PermissionDeniedError), caller.call(unknown):
                pass


def test_no_service_decides_about_runs_and_only_a_trainer_about_versions() -> None:
    for method in METHODS.values():
        covered = set(roles_of(method))
        if method.name in CHANGES_RUNS:
            assert covered == {"admin", "submitter"}
        if method.containing_service.name == "TrainingService":
            assert covered == {"admin", "trainer"}


def test_a_service_speaks_for_its_own_kind() -> None:
    for role in SERVICES:
        caller = Caller("c", frozenset({role}))
        for kind, speakers in KINDS.items():
            if role in speakers:
                caller.check_kind(kind)
            else:
                with pytest.raises(PermissionDeniedError, match="does not speak for"):
                    caller.check_kind(kind)
    with pytest.raises(PermissionDeniedError):
        Caller("c", frozenset({"rollout"})).check_kind("nats")


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A server with every RPC that there is behind the gate of all services; a call that passes is not implemented."""
    tokens = [f'[{role}]\nsha256 = "{digest_of(role)}"\nroles = ["{role}"]\n' for role in ROLES]
    (tmp_path / "tokens.toml").write_text("\n".join(tokens))
    service = Service("test", ServiceSettings(tokens_file=tmp_path / "tokens.toml"))
    found = {each.containing_service.full_name: each.containing_service for each in METHODS.values()}
    for name, descriptor in found.items():
        stubs = importlib.import_module(f"{descriptor.file.name.removesuffix('.proto').replace('/', '.')}_pb2_grpc")
        short = name.rpartition(".")[2]
        getattr(stubs, f"add_{short}Servicer_to_server")(getattr(stubs, f"{short}Servicer")(), service.server)
    await service.listen(list(found.values()))
    await service.ready()
    yield service.address
    await service.server.stop(None)


async def status_of(channel: grpc.aio.Channel, method: str, token: str) -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    kind = channel.unary_stream if METHODS[method].server_streaming else channel.unary_unary
    call = kind(f"/{method}")(b"", metadata=metadata, timeout=20)
    return await call.code()


async def test_over_the_wire_each_role_reaches_its_rpcs_alone(address: str) -> None:
    """Roles × RPCs, of every service."""
    asked = [(method, role) for method in METHODS for role in (*ROLES, "", "no token of theirs")]
    async with grpc.aio.insecure_channel(address) as channel:
        codes = await asyncio.gather(*(status_of(channel, *each) for each in asked))
    for (method, role), code in zip(asked, codes, strict=True):
        if role not in ROLES:
            assert code == grpc.StatusCode.UNAUTHENTICATED, method
        else:
            covered = role in roles_of(METHODS[method])
            expected = grpc.StatusCode.UNIMPLEMENTED if covered else grpc.StatusCode.PERMISSION_DENIED
            assert code == expected, (method, role)
