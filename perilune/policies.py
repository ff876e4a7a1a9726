"""The name of a policy: in its versions, on the bus, on disk, and as it is shown.

The default name is never written on the wire: a message without a name is a version of `policy`, as those of 0.1.0 are,
and versions that are the same stay equal.
"""

from __future__ import annotations

import re
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError

DEFAULT_POLICY = "policy"
MAX_NAME_CHARS = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def check_policy_name(name: str) -> None:
    """InvalidInputError if this is no name of a policy."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        raise InvalidInputError(
            f"{name[:100]!r} is no name of a policy: use up to {MAX_NAME_CHARS} of a-z, 0-9 and '-', not '-' first"
        )


def policy_version(number: int, digest: str = "", policy: str = DEFAULT_POLICY) -> PolicyVersion:
    """The version of the policy of that name. InvalidInputError if it is no name."""
    check_policy_name(policy)
    return PolicyVersion(number=number, digest=digest, name="" if policy == DEFAULT_POLICY else policy)


def policy_name(version: PolicyVersion) -> str:
    """The name of the policy that a version is of. InvalidInputError if it is no name."""
    name = version.name or DEFAULT_POLICY
    check_policy_name(name)
    return name


def own_name(version: PolicyVersion) -> str:
    """The name of a version's policy, or nothing where it is the default. InvalidInputError if it is no name."""
    name = policy_name(version)
    return "" if name == DEFAULT_POLICY else name


def shown_version(version: PolicyVersion, mark: str = "v") -> str:
    """A version as a reader sees it: `v3`, or `critic v3` of a policy with a name of its own."""
    name = "" if version.name in ("", DEFAULT_POLICY) else f"{version.name} "
    return f"{name}{mark}{version.number}"


def version_as_json(version: PolicyVersion) -> dict[str, Any]:
    """A version as plain values: its number and digest, and its policy's name if that is not the default."""
    named = {} if version.name in ("", DEFAULT_POLICY) else {"policy": version.name}
    return {"version": version.number, "digest": version.digest} | named
