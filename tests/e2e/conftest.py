"""What a failed test leaves running would slow down all that come after it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e import launcher


@pytest.fixture(autouse=True)
async def nothing_is_left_running() -> AsyncIterator[None]:
    yield
    for command in launcher.launched:
        if command.process.returncode is None:
            command.process.kill()  # its services end with it
            await command.process.wait()
    launcher.launched.clear()
