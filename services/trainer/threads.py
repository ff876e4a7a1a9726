"""How many threads torch computes with."""

from __future__ import annotations

import os

import torch


def use_threads(num_threads: int | None) -> None:
    """Sets the number for work started from the calling thread; all cores if not given."""
    torch.set_num_threads(num_threads or len(os.sched_getaffinity(0)))
