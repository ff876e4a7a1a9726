"""A full disk is distinguished from what does not pass by itself."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from perilune.local.children import failed_to_write
from services.trainer.versions.room import is_full


def test_a_full_disk_is_told_by_the_error_by_its_words_or_by_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "not" / "yet"
    assert is_full(missing, OSError(errno.ENOSPC, "no space"))
    assert is_full(missing, OSError(errno.EDQUOT, "quota"))
    assert is_full(missing, RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_full(missing, OSError(errno.EACCES, "permission denied"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    assert is_full(missing, RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed"))


def test_a_bus_that_found_its_disk_full_says_so_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "nats.log"
    before = "[1] [ERR] Filestore [SAMPLES] Critical write error: write 1.blk: no space left on device\n"
    log.write_text(before)
    assert failed_to_write(log)
    assert not failed_to_write(log, len(before))  # of the life before
