"""Files that are there whole or not at all."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from perilune.completions import Cache
from perilune.data.whole_files import write_whole
from perilune.errors import StateError


@pytest.fixture
def full_disk() -> None:
    """No file can grow beyond 100 kB, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_file_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_whole(path, b"before")
    with pytest.raises(StateError, match=r"cannot write .*the same command goes on"):
        write_whole(path, b"x" * 200_000)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_keeps_the_answers_before(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "answers.sqlite")
    cache.put(b"1", "four")
    with pytest.raises(StateError, match="cannot keep answers"):
        cache.put(b"2", "x" * 200_000)
    cache.close()
    assert Cache(tmp_path / "answers.sqlite").get(b"1") == "four"
