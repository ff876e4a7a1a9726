"""Work that hangs, beside work that does not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from perilune.errors import OverloadedError, UnavailableError
from services.master import reading
from services.master.reading import Readers


async def test_what_hangs_is_given_up_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    never, readers = threading.Event(), Readers(num_readers=2, deadline_s=0.2)
    try:
        with pytest.raises(UnavailableError, match=r"not be read within 0\.2 s"):
            await readers.read(never.wait)
        assert await readers.read(int, "7") == 7  # by the other reader
        monkeypatch.setattr(reading, "MAX_WAITING", 1)
        waiting = asyncio.create_task(readers.read(never.wait))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="1 runs are being read"):
            await readers.read(int, "8")
        with pytest.raises(UnavailableError):
            await waiting
        with pytest.raises(UnavailableError):  # both readers hang
            await readers.read(int, "9")
        never.set()
        with pytest.raises(ValueError, match="invalid literal"):
            await readers.read(int, "none")
    finally:
        never.set()
