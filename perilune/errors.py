"""Every exception that Perilune raises on purpose, and how each crosses a gRPC boundary.

A message says what is wrong and what to do. Anything that is not one of these is a bug of ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc


class PeriluneError(Exception):
    """Root of all errors that a caller can handle."""


class InvalidInputError(PeriluneError):
    """The input is wrong; a retry without a change cannot help."""


class TooLargeError(InvalidInputError, ValueError):
    """A message is over the bus's limit."""


class RecipeError(InvalidInputError):
    """A recipe has wrong keys or values; the message names each."""


class SettingsError(InvalidInputError):
    """A program's settings cannot be used, and a restart would not help: exit status 2."""


RECIPE_IS_KEPT = (
    "the recipe is kept with the run, which would fail alike if it were resumed: mend it, and start a new run with it"
)


def verdict(error: PeriluneError) -> str:
    """A failed run's reason; for an error of the recipe it adds that resuming would not help."""
    is_of_recipe = isinstance(error, InvalidInputError) and not isinstance(error, SettingsError)
    return f"{error}; {RECIPE_IS_KEPT}" if is_of_recipe else str(error)


class NotFoundError(PeriluneError):
    """There is no such run, worker, file or model."""


class AlreadyExistsError(PeriluneError):
    """The name is taken by something else."""


class StateError(PeriluneError):
    """The thing exists and is in no state for this call."""


class NoRoomError(StateError):
    """A disk is full; trying again helps once there is room."""


class StaleLeaseError(PeriluneError):
    """The call belongs to a lease that is over; it changed nothing. Acquire the next one."""


class UnavailableError(PeriluneError):
    """A service cannot be reached or is stopping; trying again later may help."""


class OverloadedError(PeriluneError):
    """A queue is full, or a quota is used up; try again with backoff, or after `retry_after_s` where it is known."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnauthenticatedError(PeriluneError):
    """The call has no token, or one that the service does not know."""


class PermissionDeniedError(PeriluneError):
    """The caller is known, and may not call this."""


class WeightStreamError(PeriluneError):
    """A weight version arrived corrupt, incomplete or for another model; it was not swapped in."""


class MissingDependencyError(PeriluneError):
    """A package or program that this needs is not installed; the message says how to get it."""


STATUS_OF_ERROR: dict[type[PeriluneError], grpc.StatusCode] = {
    InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    RecipeError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    StateError: grpc.StatusCode.FAILED_PRECONDITION,
    StaleLeaseError: grpc.StatusCode.ABORTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    WeightStreamError: grpc.StatusCode.DATA_LOSS,
    MissingDependencyError: grpc.StatusCode.UNIMPLEMENTED,
}

_ERROR_OF_STATUS: dict[grpc.StatusCode, type[PeriluneError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: StateError,
    grpc.StatusCode.ABORTED: StaleLeaseError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.DATA_LOSS: WeightStreamError,
}

# Trailers of a rejection that says when to retry, in milliseconds: for readers, and for gRPC's own retries.
RETRY_AFTER = "retry-after-ms"
_RETRY_PUSHBACK = "grpc-retry-pushback-ms"
# gRPC's own refusal of a message has the status of a full queue; but it would be refused again.
_TOO_LARGE = "message larger than max"


def error_from_rpc(error: grpc.RpcError) -> PeriluneError:
    """The exception a caller sees for a failed RPC: its status by the table above, its text as it came."""
    status, details = error.code(), error.details() or ""
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return InvalidInputError(f"{details}; send less in one message")
    found = _ERROR_OF_STATUS.get(status, PeriluneError)(details or f"the call failed with {status.name}")
    if isinstance(found, OverloadedError):
        trailers: Any = error.trailing_metadata() or ()
        found.retry_after_s = next((int(value) / 1000 for key, value in trailers if key == RETRY_AFTER), None)
    return found


@contextlib.asynccontextmanager
async def rpc_errors(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Turns Perilune's own exceptions into the gRPC status that stands for each; others stay bugs."""
    try:
        yield
    except PeriluneError as error:
        status = next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)
        wait_s = error.retry_after_s if isinstance(error, OverloadedError) else None
        wait_ms = "" if wait_s is None else str(math.ceil(wait_s * 1000))
        trailers = ((RETRY_AFTER, wait_ms), (_RETRY_PUSHBACK, wait_ms)) if wait_ms else ()
        await context.abort(status, str(error), trailers)
