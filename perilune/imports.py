"""The imports of a process that will run for long, made quick."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Leaves out garbage collection while modules are imported, and leaves out their objects from then on.

    torch and transformers make a million objects that stay. The collector would look through them again and again: a
    quarter of the time until a trainer answers, and a second's pause of its event loop at each full collection.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
