"""Between the API's messages and the sandbox's nouns; what a caller may ask for is checked here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.errors import InvalidInputError
from services.sandbox.job import File, Image, Isolation, JobOutcome, Limits, Output

MAX_PATH_BYTES = 1024


def read_limits(given: api.Limits, default: Limits, largest: Limits) -> Limits:
    """The limits asked for, the default where none is. InvalidInputError beyond the largest, or for nonsense."""
    read = {}
    for name in (field.name for field in fields(Limits)):
        value = getattr(given, name) if given.HasField(name) else getattr(default, name)  # type: ignore[arg-type]
        most = getattr(largest, name)
        if not (math.isfinite(value) and value > 0):
            raise InvalidInputError(f"limit {name}: a positive number, not {value}")
        if given.HasField(name) and value > most:  # type: ignore[arg-type]
            raise InvalidInputError(f"limit {name}: this service allows {most} at most, not {value}")
        read[name] = min(value, most)
    return Limits(**read)


def wider(a: Limits, b: Limits) -> Limits:
    """The larger of each."""
    return Limits(**{field.name: max(getattr(a, field.name), getattr(b, field.name)) for field in fields(Limits)})


def write_limits(limits: Limits) -> api.Limits:
    """Converts limits to their message."""
    return api.Limits(**{field.name: getattr(limits, field.name) for field in fields(Limits)})


def read_files(files: Iterable[api.File]) -> list[File]:
    """InvalidInputError for a path that leaves the work folder, or comes twice."""
    read = [File(check_path(file.path), file.content, file.executable) for file in files]
    for path, times in Counter(file.path for file in read).items():
        if times > 1:
            raise InvalidInputError(f"file {path!r} is given {times} times")
    return read


def check_path(path: str) -> str:
    """A relative path without `.`, `..` or NUL. InvalidInputError otherwise."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path or len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidInputError(
            f"{path[:200]!r} is no path in the work folder: relative, with no empty part and no `..`"
        )
    return path


def write_files(files: Sequence[File]) -> list[api.File]:
    """Converts files to their messages."""
    return [api.File(path=file.path, content=file.content, executable=file.executable) for file in files]


def write_output(output: Output) -> api.Output:
    """Converts an output to its message."""
    return api.Output(content=output.content, num_bytes=output.num_bytes, truncated=output.truncated)


def write_execution(outcome: JobOutcome) -> api.Execution:
    """Converts an outcome to its message."""
    return api.Execution(
        verdict=outcome.verdict.value,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        stdout=write_output(outcome.stdout),
        stderr=write_output(outcome.stderr),
        usage=api.Usage(cpu_s=outcome.cpu_s, wall_s=outcome.wall_s, peak_memory_bytes=outcome.peak_memory_bytes),
        files=write_files(outcome.files),
    )


def write_isolation(isolation: Isolation) -> api.Isolation:
    """Converts an isolation to its message."""
    return api.Isolation(level=isolation.level, mechanisms=isolation.mechanisms)


def write_image(image: Image) -> api.Image:
    """Converts an image to its message."""
    return api.Image(name=image.name, digest=image.digest, num_bytes=image.num_bytes)
