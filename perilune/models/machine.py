"""The machine as torch sees it; `python -m perilune.models.machine` prints it as JSON, for programs without torch."""

from __future__ import annotations

import ctypes
import json
import warnings
from dataclasses import asdict

import torch

from perilune.models.device import Card, Device, Machine, choose_device, has_driver, parse_device


def this_machine() -> Machine:
    """Describes the machine. To measure a card's free memory, CUDA takes some hundred MiB of it for this process."""
    with warnings.catch_warnings(record=True) as said:  # how torch says that a driver is too old
        warnings.simplefilter("always")
        num_cards = torch.cuda.device_count() if torch.version.cuda and torch.cuda.is_available() else 0
    error = " ".join(str(warning.message).strip().splitlines()[0] for warning in said)
    try:
        cards = tuple(_card(index) for index in range(num_cards))
    except RuntimeError as failed:  # torch has no class of its own for what CUDA answers
        cards, error = (), str(failed).strip().splitlines()[0]
    return Machine(cards, has_driver(), torch.version.cuda, error)


def find_device(wanted: str) -> Device:
    """The device that a setting asks for. SettingsError as `choose_device`."""
    request = parse_device(wanted)
    return choose_device(request, Machine() if request.type == "cpu" else this_machine())


def give_memory_back() -> None:
    """Returns memory that this process freed to the system and the card: another process needs it now."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others return large blocks by themselves
    if trim:
        trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _card(index: int) -> Card:
    properties = torch.cuda.get_device_properties(index)
    free_bytes, total_bytes = torch.cuda.mem_get_info(index)
    return Card(index, properties.name, total_bytes, free_bytes, has_bf16=properties.major >= 8)  # Ampere and later


if __name__ == "__main__":
    print(json.dumps(asdict(this_machine())))
