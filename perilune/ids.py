"""Ids of groups, samples and messages: built here, and parsed here.

A group's id begins with its run, a sample's with its group, a message's with what it is about. Redelivery is harmless
because of them: the same thing has the same id whenever and wherever it is named. What an older version wrote is read.

    group       <run>.<draw>.<position>, <run>.<iteration>.<mode>.<position> where it is held out
    sample      <group>/<index>
    message     <group>/<dispatch>, <sample>/round-<round>-<dispatch>, <sample>/<stage>-<round>[-<whole>]~<digest>,
                <sample>/whole-<round>-<digest>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from perilune.errors import InvalidInputError

DIGEST_CHARS = 32  # of a digest, in a message's id
MAX_INDEX = (1 << 32) - 1  # of a sample: uint32 in the contract

_NUMBER = r"(0|[1-9]\d{0,18})"
_GROUP = re.compile(rf"([^./]+)\.{_NUMBER}(?:\.([^./]+))?\.{_NUMBER}", re.ASCII)
_SAMPLE = re.compile(rf"([^/]+)/{_NUMBER}", re.ASCII)
_TASK = re.compile(rf"([^/]+)/{_NUMBER}", re.ASCII)
_REST = re.compile(rf"round-{_NUMBER}-{_NUMBER}", re.ASCII)
_WHOLE = re.compile(rf"whole-{_NUMBER}-([0-9a-f]+)", re.ASCII)
_STAGE = re.compile(rf"([a-z]+)(?:-{_NUMBER}(?:-{_NUMBER})?)?(?:~([0-9a-f]+))?", re.ASCII)  # versions before wrote less


class GroupId(NamedTuple):
    """The k samples of one prompt."""

    run_id: str
    number: int  # of the draw; of the iteration where it is held out
    position: int
    mode: str = ""  # greedy or sampled, where it is held out

    def __str__(self) -> str:
        return ".".join(map(str, filter(None, (self.run_id, str(self.number), self.mode, str(self.position)))))


class SampleId(NamedTuple):
    """One sample of a group."""

    group_id: str
    sample_index: int

    def __str__(self) -> str:
        return f"{self.group_id}/{self.sample_index}"


class TaskId(NamedTuple):
    """The message that asks for samples of a group."""

    group_id: str
    dispatch: int  # how often the group was sent out, this time included

    def __str__(self) -> str:
        return f"{self.group_id}/{self.dispatch}"


class RestId(NamedTuple):
    """The message that asks for the rest of an unfinished sample."""

    sample: SampleId
    round: int
    dispatch: int

    def __str__(self) -> str:
        return f"{self.sample}/round-{self.round}-{self.dispatch}"


class StageId(NamedTuple):
    """A message with what came of a sample, such as `finished` or `scored`; a newer version may have other stages."""

    sample: SampleId
    stage: str
    round: int  # how often it was continued: what an earlier round left must not hide what a later one says
    whole: int = 0  # the number of the message that holds it whole: nor must one whose tokens are lost hide the next
    digest: str = ""  # of what it says, in hex: nor must what another sender says of the sample hide it

    def __str__(self) -> str:
        numbers = "-".join(map(str, filter(None, (str(self.round), self.whole))))
        return "~".join(filter(None, (f"{self.sample}/{self.stage}-{numbers}", self.digest)))


class WholeId(NamedTuple):
    """The message that holds a finished sample whole. A group that is sampled twice may come out differently, and
    neither must hide the other."""

    sample: SampleId
    round: int
    digest: str  # of its bytes, in hex

    def __str__(self) -> str:
        return f"{self.sample}/whole-{self.round}-{self.digest}"


MessageId = TaskId | RestId | StageId | WholeId


def parse_group(text: str) -> GroupId:
    """The parts of a group's id. InvalidInputError if it is none."""
    if found := _GROUP.fullmatch(text):
        run_id, number, mode, position = found.groups()
        return GroupId(run_id, int(number), int(position), mode or "")
    raise _error(text, "a group", "<run>.<draw>.<position>")


def parse_sample(text: str) -> SampleId:
    """The parts of a sample's id. InvalidInputError if it is none."""
    if (found := _SAMPLE.fullmatch(text)) and int(found[2]) <= MAX_INDEX:
        return SampleId(found[1], int(found[2]))
    raise _error(text, "a sample", "<group>/<index>")


def parse_message(text: str) -> MessageId:
    """Returns what a message is about, by its id. InvalidInputError if it is about no group and no sample."""
    if found := _TASK.fullmatch(text):
        return TaskId(found[1], int(found[2]))
    head, _, tail = text.rpartition("/")
    if found := _REST.fullmatch(tail):
        return RestId(parse_sample(head), int(found[1]), int(found[2]))
    if found := _WHOLE.fullmatch(tail):
        return WholeId(parse_sample(head), int(found[1]), found[2])
    if found := _STAGE.fullmatch(tail):
        numbers = int(found[2] or 0), int(found[3] or 0)
        return StageId(parse_sample(head), found[1], *numbers, found[4] or "")
    raise _error(text, "a message", "<group>/<dispatch> or <group>/<index>/<stage>-<round>")


def belongs(group_id: str, run_id: str) -> bool:
    """Tests whether a group is of this run, as its id says."""
    return group_id.startswith(f"{run_id}.")


def event_id(run_id: str, source: str, kind: str, number: int | str = "") -> str:
    """The id of an event's message; the number tells it from others of its source and kind."""
    return "/".join(filter(None, (run_id, source, kind, str(number))))


def dead_letter_id(place: str, sample_ids: Sequence[str]) -> str:
    """The id of the letter about a message, or about some of its samples. `place`: where the message lies."""
    return f"dead/{place}/{len(sample_ids)}/{sample_ids[0]}" if sample_ids else f"dead/{place}/"


def _error(text: str, noun: str, form: str) -> InvalidInputError:
    return InvalidInputError(f"{text[:200]!r} is no id of {noun}: it has the form {form}")
