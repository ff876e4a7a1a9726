"""Says how many threads torch computes with."""

from __future__ import annotations

import os

import torch


def use_threads(num_threads: int | None) -> None:
    """Sets the number for work started from the calling thread.

    If the recipe gives none, OMP_NUM_THREADS decides, or else it is all cores.
    """
    given = num_threads or os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    torch.set_num_threads(int(given))
