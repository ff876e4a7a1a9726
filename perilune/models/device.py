"""Says where a process computes: what PERILUNE_DEVICE asks for, decided by what the machine has. Needs no torch.

A device belongs to a machine and not to a run: the same recipe trains on a laptop and on a card, so it is a setting of
each service and no key of a recipe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from perilune.errors import InvalidInputError, SettingsError

GIB = 1 << 30
MIN_FREE_BYTES = 2 * GIB  # a card with less is full: torch's own context takes about half a GiB of it
BUILDS = "https://pytorch.org/get-started/locally/ names the builds for each driver"


@dataclass(frozen=True)
class DeviceRequest:
    """Describes what a setting asks for."""

    type: Literal["auto", "cpu", "cuda"]
    index: int | None = None  # of the card; None: the one with the most free memory


@dataclass(frozen=True)
class Card:
    """A card, as torch sees it: numbered among those that CUDA_VISIBLE_DEVICES leaves."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    has_bf16: bool = True


@dataclass(frozen=True)
class Machine:
    """Describes what there is to compute on."""

    cards: tuple[Card, ...] = ()
    has_driver: bool = False
    torch_cuda: str | None = None  # the version of CUDA that torch is built for; None: for CPUs only
    error: str = ""  # what the driver or CUDA answers torch, where they do not work together


@dataclass(frozen=True)
class Device:
    """Describes where a process computes; `str` of it is torch's name."""

    type: Literal["cpu", "cuda"] = "cpu"
    card: Card | None = None  # of "cuda"
    reason: str = ""  # why it is no card, where one would have been taken

    def __str__(self) -> str:
        return f"cuda:{self.card.index}" if self.card else self.type

    def in_words(self) -> str:
        """The device, with the card's memory or why there is none, for the log."""
        if self.card:
            free, total = self.card.free_bytes / GIB, self.card.total_bytes / GIB
            return f"{self} ({self.card.name}, {free:.1f} of {total:.1f} GiB free)"
        return f"{self} ({self.reason})" if self.reason else str(self)


CPU = Device()


def parse_device(text: str) -> DeviceRequest:
    """Reads `auto`, `cpu`, `cuda` or `cuda:N`. InvalidInputError for anything else.

    >>> parse_device("cuda:1")
    DeviceRequest(type='cuda', index=1)
    """
    found = re.fullmatch(r"(auto|cpu|cuda)|cuda:([0-9]{1,4})", text.strip().lower())
    if not found:
        raise InvalidInputError(
            f"{text!r} is no device: give auto (a free card, else the CPU), cpu, cuda (a free card), or cuda:N"
        )
    if found[2]:
        return DeviceRequest("cuda", int(found[2]))
    return DeviceRequest(found[1])  # type: ignore[arg-type]  # the pattern has these three


def _checked(text: str) -> str:
    try:
        parse_device(text)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error
    return text


DeviceSetting = Annotated[str, AfterValidator(_checked)]


def has_driver() -> bool:
    """Tests whether NVIDIA's driver is loaded: its control device is there, as it is in containers that are given
    cards."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()  # the latter: Windows' subsystem for Linux


def why_no_card(machine: Machine) -> str:
    """Why torch can use no card of this machine, and what to do; "" if it can use one."""
    if machine.cards:
        return ""
    if not machine.has_driver:
        return "no NVIDIA driver"
    if machine.torch_cuda is None:
        return f"torch is built for CPUs only; {BUILDS}"
    if machine.error:
        return f"torch, built for CUDA {machine.torch_cuda}, cannot use the driver: {machine.error}; {BUILDS}"
    return "no card is visible; see CUDA_VISIBLE_DEVICES"


def choose_device(request: DeviceRequest, machine: Machine) -> Device:
    """The device for a request. SettingsError if it asks for a card that is not there, or if none has room."""
    if request.type == "cpu":
        return CPU
    if request.index is not None:
        return Device("cuda", _card_numbered(request.index, machine))
    card = max(machine.cards, key=lambda card: card.free_bytes, default=None)
    if card and card.free_bytes >= MIN_FREE_BYTES:
        return Device("cuda", card)
    reason = why_no_card(machine) or f"no card has room: {_list_cards(machine.cards)}"
    if request.type == "cuda":
        raise SettingsError(f"PERILUNE_DEVICE=cuda: {reason}; or set PERILUNE_DEVICE=cpu")
    return Device("cpu", None, reason)


def rank_request(request: DeviceRequest, machine: Machine, local_rank: int, num_local_ranks: int) -> DeviceRequest:
    """The request of one of a trainer's ranks on a machine: each rank has a card of its own, or all have the CPU.

    SettingsError if there are cards, but fewer than ranks, or if all are given the same card.
    """
    if num_local_ranks == 1 or request.type == "cpu" or (request.type == "auto" and not machine.cards):
        return request
    if request.index is not None:
        raise SettingsError(
            f"PERILUNE_DEVICE=cuda:{request.index}: {num_local_ranks} ranks cannot share one card; set auto or cuda, "
            "and choose cards with CUDA_VISIBLE_DEVICES"
        )
    if reason := why_no_card(machine):
        raise SettingsError(f"PERILUNE_DEVICE=cuda: {reason}; or set PERILUNE_DEVICE=cpu")
    if num_local_ranks > len(machine.cards):
        raise SettingsError(
            f"{num_local_ranks} ranks of the trainer are started here, and there are {_num_cards(machine)}: start at "
            "most one rank for each card, or set PERILUNE_DEVICE=cpu"
        )
    return DeviceRequest("cuda", local_rank)


def check_precision(device: Device, precision: str) -> None:
    """SettingsError where a card has no arithmetic in bf16, and a recipe asks for it."""
    if precision in ("bf16", "bfloat16") and device.card and not device.card.has_bf16:
        raise SettingsError(
            f'{device.card.name} does not compute in bf16; train with trainer.precision = "fp32" and model.dtype = '
            '"float32", or set PERILUNE_DEVICE=cpu'
        )


def _card_numbered(index: int, machine: Machine) -> Card:
    found = next((card for card in machine.cards if card.index == index), None)
    if found is None:
        reason = why_no_card(machine) or f"there are {_list_cards(machine.cards)}"
        asked = f"PERILUNE_DEVICE=cuda:{index}"
        raise SettingsError(f"{asked}: there is no such card: {reason}; or set PERILUNE_DEVICE=auto")
    return found


def _num_cards(machine: Machine) -> str:
    return f"{len(machine.cards)} card{'s' if len(machine.cards) != 1 else ''}"


def _list_cards(cards: Sequence[Card]) -> str:
    return ", ".join(Device("cuda", card).in_words() for card in cards)
