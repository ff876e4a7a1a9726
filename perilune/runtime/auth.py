"""Says who may call a service, what they may call, and how much: one gate for gRPC and HTTP, for unary and for streams.

A tokens file (TOML) has one table a caller:

    [alice]
    sha256 = "5e88…"          # of the token; `perilune token` makes both
    roles = ["reward"]        # what alice is; each RPC names the roles that cover it (`roles.py`)
    expires = 2027-01-31      # a date, or a time with its zone; not given: never
    requests_per_s = 50       # and up to that many at once after a pause; not given: no limit
    max_concurrent = 8        # calls under way at one time; not given: no limit

    [trainer-7]
    certificate = "trainer-7" # in place of a token: the common name of the client certificate (mTLS)
    roles = ["admin"]

A token is 256 random bits, so a plain hash keeps it: there is nothing to guess.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import secrets
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from perilune.errors import (
    InvalidInputError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    rpc_errors,
)
from perilune.runtime.interception import wrapped
from perilune.runtime.roles import FORMER, KINDS, ROLES, roles_for

# Anyone may ask whether a service is well, and every known caller what it offers and to be kept informed of it.
OPEN_METHOD = "/grpc.health.v1.Health/Check"
COMMON = ("grpc.reflection.", "grpc.health.")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Entry(BaseModel):
    """One table of the tokens file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    certificate: str | None = None
    roles: Annotated[frozenset[str], Field(min_length=1)]
    requests_per_s: Positive | None = None
    max_concurrent: Annotated[int, Field(gt=0)] | None = None
    expires: AwareDatetime | date | None = None  # of a date: when it begins, in UTC

    @model_validator(mode="after")
    def _is_complete(self) -> Entry:
        if not (self.sha256 or self.certificate):
            raise ValueError("give sha256 (of the token) or certificate (its common name)")
        for name in sorted(self.roles - set(ROLES)):
            if name in FORMER:
                raise ValueError(f"the role {name!r} of versions before is now {FORMER[name]}")
            raise ValueError(f"there is no role {name!r}; known are {', '.join(ROLES)}")
        return self

    @property
    def expires_at(self) -> float:
        """When the entry is no longer good, in seconds since the Unix epoch; infinity for never."""
        if self.expires is None:
            return math.inf
        if not isinstance(self.expires, datetime):
            return datetime(*self.expires.timetuple()[:3], tzinfo=UTC).timestamp()
        return self.expires.timestamp()


@dataclass
class Caller:
    """Describes who calls, and what is left of their quota."""

    name: str
    roles: frozenset[str]
    requests_per_s: float = math.inf
    max_concurrent: float = math.inf
    clock: Callable[[], float] = time.monotonic
    num_running: int = 0
    _credit: float = field(init=False)
    _credited_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._credit = self._most_credit
        self._credited_at = self.clock()

    @property
    def _most_credit(self) -> float:
        return max(1.0, self.requests_per_s)

    def charge(self, num_requests: int = 1) -> None:
        """Takes so many requests from the quota. A batch beyond a second's worth is let through on credit, and paid
        for by what comes after it. OverloadedError says when there will be room."""
        if math.isinf(self.requests_per_s):
            return
        now = self.clock()
        self._credit = min(self._most_credit, self._credit + (now - self._credited_at) * self.requests_per_s)
        self._credited_at = now
        needed = min(float(num_requests), self._most_credit)
        if self._credit < needed:
            raise OverloadedError(
                f"{self.name} has used up its {self.requests_per_s:g} requests a second",
                retry_after_s=(needed - self._credit) / self.requests_per_s,
            )
        self._credit -= num_requests

    @contextmanager
    def call(self, method: str) -> Iterator[None]:
        """Holds a place for one call of an RPC, such as `perilune.api.reward.v1.RewardService/Score`.

        PermissionDeniedError or OverloadedError.
        """
        if not method.startswith(COMMON) and self.roles.isdisjoint(roles_for(method)):
            raise PermissionDeniedError(
                f"{self.name} has the roles {', '.join(sorted(self.roles))}, which do not cover {method}: it wants "
                f"{' or '.join(roles_for(method))}"
            )
        if self.num_running >= self.max_concurrent:
            raise OverloadedError(
                f"{self.name} has {self.num_running} calls under way, as many as it may", retry_after_s=1.0
            )
        self.charge()
        self.num_running += 1
        before = _CALLER.get()
        _CALLER.set(self)
        try:
            yield
        finally:
            self.num_running -= 1
            _CALLER.set(before)  # no reset: a stream that its reader left is closed in another context

    def check_kind(self, kind: str) -> None:
        """PermissionDeniedError if the caller is no service of this kind, such as `rollout`, nor speaks for one."""
        if self.roles.isdisjoint(("admin", *KINDS.get(kind, ()))):
            raise PermissionDeniedError(
                f"{self.name} has the roles {', '.join(sorted(self.roles))}, and does not speak for a service of the "
                f"kind {kind[:20]!r}"
            )


ANYONE = Caller("anyone", frozenset({"admin"}))
_CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYONE)


def caller() -> Caller:
    """The caller of the call that is being answered; ANYONE without authentication."""
    return _CALLER.get()


class Gate:
    """Knows the callers by what they show. With no entries it asks for a certificate that the TLS layer accepted."""

    def __init__(
        self,
        entries: dict[str, Entry],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._now = clock, now
        self._known: dict[str, tuple[Entry, Caller]] = {}
        self.renew(entries)

    def renew(self, entries: dict[str, Entry]) -> None:
        """Takes other entries from the next call on. A caller whose entry stays keeps what is left of its quota."""
        self._known = {
            name: self._known[name] if name in self._known and self._known[name][0] == entry else self._new(name, entry)
            for name, entry in entries.items()
        }
        known = self._known.values()
        self._by_token = {entry.sha256: (entry, one) for entry, one in known if entry.sha256}
        self._by_certificate = {entry.certificate: (entry, one) for entry, one in known if entry.certificate}
        self._asks_names = bool(entries)

    def _current(self, entry: Entry, one: Caller) -> Caller:
        if self._now() >= entry.expires_at:
            raise UnauthenticatedError(f"the token of {one.name} expired at {entry.expires}: ask for a new one")
        return one

    def _new(self, name: str, entry: Entry) -> tuple[Entry, Caller]:
        limits = (entry.requests_per_s or math.inf, entry.max_concurrent or math.inf)
        return entry, Caller(name, entry.roles, *limits, clock=self._clock)

    def caller(self, authorization: str, certificates: Sequence[str] = ()) -> Caller:
        """Returns who it is, by the `authorization` header (bearer, or basic with the token as password) or by the
        names in a client certificate that was already verified. UnauthenticatedError says what to do."""
        for name in certificates:
            if name in self._by_certificate:
                return self._current(*self._by_certificate[name])
        if certificates and not self._asks_names:
            return ANYONE
        token = _token(authorization)
        if not token:
            raise UnauthenticatedError(
                "this service asks who calls: send the header `authorization: Bearer TOKEN` "
                "(clients of Perilune: token=… or PERILUNE_TOKEN)"
            )
        digest = digest_of(token)
        for known, one in self._by_token.items():
            if hmac.compare_digest(known, digest):
                return self._current(*one)
        raise UnauthenticatedError("the token is not known here: check that it is whole, or ask for a new one")


def read_tokens(path: Path) -> dict[str, Entry]:
    """The entries of a tokens file by caller. InvalidInputError names what is wrong with it."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"the tokens file {path} cannot be read: {error}") from error
    entries = {}
    for name, table in tables.items():
        try:
            entries[name] = Entry.model_validate(table)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise InvalidInputError(f"the tokens file {path}, {where}: {first['msg']}") from error
    if not entries:
        raise InvalidInputError(f"the tokens file {path} names no caller; make a token with `perilune token NAME`")
    return entries


def new_token() -> str:
    """A random token."""
    return f"perilune-{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> str:
    """A token's SHA-256, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def _token(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":  # all that a caller can send who may only give a URL: http://name:token@host
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets no call through the gate that has no business there, of whatever kind the method is."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wraps a method so that its caller is authenticated first."""
        handler = await continuation(details)
        method = details.method.lstrip("/")
        if handler is None:
            return handler
        if details.method == OPEN_METHOD:
            return self._open(handler)

        @asynccontextmanager
        async def admitted(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
            async with rpc_errors(context):
                with self._caller(context).call(method):
                    yield

        return wrapped(handler, admitted)

    def _open(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """The health check, which answers a stranger for the whole service and does not read what it sent."""
        behaviour: Any = handler.stream_unary  # `perilune.runtime.unreadable` made it one

        async def answer(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                self._caller(context)
            except UnauthenticatedError:
                requests = _of_whole_service()
            return await behaviour(requests, context)

        deserialize, serialize = handler.request_deserializer, handler.response_serializer
        return grpc.stream_unary_rpc_method_handler(answer, deserialize, serialize)

    def _caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        headers = dict(context.invocation_metadata() or ())
        names = context.auth_context().get("x509_common_name", ())
        return self._gate.caller(str(headers.get("authorization", "")), [name.decode() for name in names])


async def _of_whole_service() -> AsyncIterator[HealthCheckRequest]:
    yield HealthCheckRequest()
