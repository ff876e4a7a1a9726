"""Every exception that Perilune raises on purpose, and how each crosses a gRPC boundary.

A message says what is wrong and what to do. Anything that is not one of these is a bug of ours.
"""

from __future__ import annotations

import grpc


class PeriluneError(Exception):
    """Root of all errors that a caller can handle."""


class InvalidInputError(PeriluneError):
    """What the caller gave is wrong; trying again without a change cannot help."""


class RecipeError(InvalidInputError):
    """A recipe has wrong keys or values; the message names each."""


class NotFoundError(PeriluneError):
    """There is no such run, worker, file or model."""


class AlreadyExistsError(PeriluneError):
    """The name is taken by something else."""


class StateError(PeriluneError):
    """The thing exists and is in no state for this call."""


class UnavailableError(PeriluneError):
    """A service cannot be reached or is stopping; trying again later may help."""


class OverloadedError(PeriluneError):
    """A queue is full; try again with backoff."""


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
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    WeightStreamError: grpc.StatusCode.DATA_LOSS,
    MissingDependencyError: grpc.StatusCode.UNIMPLEMENTED,
}

_ERROR_OF_STATUS: dict[grpc.StatusCode, type[PeriluneError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: StateError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DATA_LOSS: WeightStreamError,
}


def error_from_rpc(error: grpc.RpcError) -> PeriluneError:
    """The exception a caller sees for a failed RPC: its status by the table above, its text as it came."""
    status, details = error.code(), error.details() or ""
    return _ERROR_OF_STATUS.get(status, PeriluneError)(details or f"the call failed with {status.name}")
