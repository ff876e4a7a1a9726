"""Roles: what a caller is, and which RPCs that covers, as each RPC says in its proto."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default

from perilune.api.access.v1 import access_pb2
from perilune.api.access.v1.access_pb2 import Role

ADMIN = "admin"
# Names of versions before, and what each is now.
FORMER: Mapping[str, str] = {
    "runs": "submitter (or viewer, which only looks)",
    "worker": "the service's own: master, trainer, rollout, reward-worker or relay",
}
# What a service may say of itself to the master, by the kind that it names, and the roles that may say so.
KINDS: Mapping[str, tuple[str, ...]] = {
    "trainer": ("trainer",),
    "rollout": ("rollout",),
    "reward": ("reward-worker",),
    "relay": ("relay",),
    "sandbox": ("reward-worker", "rollout"),  # which knows no master: those that need it speak for it
}


def role_name(role: Role.ValueType) -> str:
    """A role's name in a tokens file."""
    return Role.Name(role).removeprefix("ROLE_").lower().replace("_", "-")


ROLES = tuple(role_name(role) for role in Role.values() if role != access_pb2.ROLE_UNSPECIFIED)


def roles_of(method: MethodDescriptor) -> tuple[str, ...]:
    """The roles that cover an RPC, as its proto names them, and `admin`."""
    return (ADMIN, *(role_name(role) for role in method.GetOptions().Extensions[access_pb2.roles]))


@cache
def roles_for(method: str) -> tuple[str, ...]:
    """The roles that cover an RPC by its path, such as `perilune.api.reward.v1.RewardService/Score`.

    Of a service's name alone: those that cover all of it. `admin` alone where no proto of ours has it.
    """
    service_name, _, name = method.strip("/").partition("/")
    try:
        service = Default().FindServiceByName(service_name)
    except KeyError:
        return (ADMIN,)
    asked = [each for each in service.methods if name in ("", each.name)]
    covering = [roles_of(each) for each in asked]
    return tuple(role for role in ROLES if covering and all(role in roles for roles in covering)) or (ADMIN,)
