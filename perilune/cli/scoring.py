"""`perilune score` and `perilune token`: the reward service from a terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from google.protobuf import json_format

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, GraderChoice, Score, ScoreRequest, ScoreStatus
from perilune.client import RewardClient, score_request
from perilune.errors import AlreadyExistsError, InvalidInputError


def score_pair(address: str, request: ScoreRequest, deadline_s: float, as_json: bool) -> int:
    """Scores one answer and prints what every grader said. Exit status 1 if there is no score."""
    with RewardClient(address) as rewards:
        score = rewards.score_all([request], deadline_s=deadline_s)[0]
    if as_json:
        print(json.dumps(_as_json(score)))
    else:
        print(f"{_value_or_status(score)}")
        for component in score.components:
            print(
                f"  {component.grader} {component.version}  weight {component.weight:g}  {_value_or_status(component)}"
            )
            for key, text in sorted(component.evidence.items()):
                print(f"    {key}: {text}")
    return 0 if score.status == SCORE_STATUS_OK else 1


def list_graders(address: str, as_json: bool) -> int:
    """Prints what the service can grade with: each grader's version, what it does, and its options. Exit status 0."""
    with RewardClient(address) as rewards:
        graders = sorted(rewards.graders(), key=lambda grader: grader.name)
    if as_json:
        print(json.dumps([json_format.MessageToDict(grader) for grader in graders], ensure_ascii=False, indent=2))
        return 0
    for grader in graders:
        print(f"{grader.name} {grader.version}  {grader.description}")
        for name, meaning in sorted(grader.options.items()):
            print(f"    {name}: {meaning}")
    return 0


def score_lines(address: str, lines: Iterable[str], graders: list[GraderChoice], deadline_s: float, out: TextIO) -> int:
    """Scores a file of JSON lines and writes each with its `score` added, in the order of the file, as soon as it can
    be; says on stderr how it went. Exit status 1 if some have no score."""
    given = [_read_line(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    requests = [request for _, request in given]
    statuses: Counter[str] = Counter()
    total, start = 0.0, time.monotonic()
    with RewardClient(address) as rewards:
        for index, score in _in_order(rewards.score_batch(requests, graders, deadline_s)):
            print(json.dumps(given[index][0] | {"score": _as_json(score)}, ensure_ascii=False), file=out, flush=True)
            statuses[_status(score)] += 1
            total += score.value
    num_scored = statuses.pop("OK", 0)
    mean = f", mean {total / num_scored:.4g}" if num_scored else ""
    failed = "".join(f", {count} {status}" for status, count in statuses.items())
    print(f"{num_scored} scored{mean}{failed}, in {time.monotonic() - start:.1f} s", file=sys.stderr)
    return 1 if statuses else 0


def new_token(path: Path, name: str, roles: list[str], requests_per_s: float | None, max_concurrent: int | None) -> str:
    """Adds a caller to a tokens file, which is made if it is not there, and returns the token, kept nowhere else.

    InvalidInputError for a wrong role or name, AlreadyExistsError if the file has the name.
    """
    from pydantic import ValidationError

    from perilune.runtime.auth import Entry, digest_of, new_token, read_tokens

    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise InvalidInputError(f"{name!r}: a caller's name has letters, digits, - and _")
    if path.exists() and name in read_tokens(path):
        raise AlreadyExistsError(f"{path} has a caller {name!r}; delete its table first, or take another name")
    token = new_token()
    try:
        entry = Entry(
            sha256=digest_of(token),
            roles=frozenset(roles),
            requests_per_s=requests_per_s,
            max_concurrent=max_concurrent,
        )
    except ValidationError as error:
        raise InvalidInputError(error.errors()[0]["msg"]) from error
    lines = [f"[{name}]", f'sha256 = "{entry.sha256}"', f"roles = {json.dumps(sorted(entry.roles))}"]
    lines += [
        f"{key} = {value}"
        for key, value in (("requests_per_s", requests_per_s), ("max_concurrent", max_concurrent))
        if value
    ]
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n\n")
    return token


def _read_line(number: int, line: str) -> tuple[dict[str, Any], ScoreRequest]:
    try:
        given = json.loads(line.removeprefix("\ufeff") if number == 1 else line)
        if given["response"] is None:
            raise TypeError("response is null")
        request = json_format.ParseDict(given, ScoreRequest(), ignore_unknown_fields=True)
    except (ValueError, LookupError, TypeError, RecursionError, json_format.ParseError) as error:
        raise InvalidInputError(f"line {number} is no request such as {_EXAMPLE}: {error}") from error
    return given, request


_EXAMPLE = json.dumps(json_format.MessageToDict(score_request("\\boxed{4}", "4", question="2 + 2?")))


def _in_order(scores: Iterable[tuple[int, Score]]) -> Iterator[tuple[int, Score]]:
    early: dict[int, Score] = {}
    due = 0
    for index, score in scores:
        early[index] = score
        while due in early:
            yield due, early.pop(due)
            due += 1


def _as_json(score: Score) -> dict[str, Any]:
    return json_format.MessageToDict(score)


def _value_or_status(part: Any) -> str:
    return f"{part.value:g}" if part.status == SCORE_STATUS_OK else _status(part)


def _status(part: Any) -> str:
    return ScoreStatus.Name(part.status).removeprefix("SCORE_STATUS_")
