"""Files into a folder and out of it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.sandbox.jail import files
from services.sandbox.jail.protocol import memory_file


def collected(folder: Path, *patterns: str, max_bytes: int = 1000) -> list[tuple[str, int, bool]]:
    root = os.open(folder, os.O_RDONLY)
    try:
        found = files.collect(root, patterns, max_bytes)
    finally:
        os.close(root)
    for file in found:
        os.close(file.descriptor)
    return [(file.path, file.size, file.executable) for file in found]


def test_files_are_laid_with_their_folders_and_modes(tmp_path: Path) -> None:
    source = memory_file("source", [b"one", b"", b"three"])
    os.lseek(source, 0, os.SEEK_SET)
    files.lay([("a", 3, False), ("deep/er/b", 0, False), ("c", 5, True)], source, str(tmp_path))
    os.close(source)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "deep/er/b").read_bytes() == b""
    assert (tmp_path / "c").read_bytes() == b"three"
    assert os.access(tmp_path / "c", os.X_OK)
    assert not os.access(tmp_path / "a", os.X_OK)


def test_a_sealed_file_cannot_be_written() -> None:
    sealed = memory_file("sealed", [b"one"])
    with pytest.raises(PermissionError):
        os.write(sealed, b"x")
    os.close(sealed)


def test_paths_and_patterns_name_files(tmp_path: Path) -> None:
    for path in ("a.txt", "b.csv", "out/c.txt", "out/in/d.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    assert collected(tmp_path, "a.txt", "absent") == [("a.txt", 5, False)]
    assert [path for path, *_ in collected(tmp_path, "*.txt")] == ["a.txt"]
    assert [path for path, *_ in collected(tmp_path, "**/*.txt")] == ["a.txt", "out/c.txt", "out/in/d.txt"]
    assert [path for path, *_ in collected(tmp_path, "out/*")] == ["out/c.txt"]


def test_what_is_no_file_of_the_folder_is_passed_over(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "up").symlink_to("..")
    (inside / "hard").write_text("mine")
    os.mkfifo(inside / "pipe")
    (inside / "folder").mkdir()
    patterns = ("*", "**/*", "link", "up/outside", "../outside", "pipe", "folder", str(outside))
    assert collected(inside, *patterns) == [("hard", 4, False)]


def test_no_more_is_brought_back_than_the_disk_holds(tmp_path: Path) -> None:
    for name, size in (("a", 600), ("b", 600), ("c", 400)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    assert collected(tmp_path, "*", max_bytes=1000) == [("a", 600, False), ("c", 400, False)]


def test_a_folder_is_weighed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 8192)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_bytes(b"")
    num_bytes, num_files = files.weigh(str(tmp_path))
    assert num_files == 3
    assert num_bytes >= 8192
    deep = tmp_path
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    assert files.weigh(str(tmp_path))[0] == float("inf")


def test_a_file_of_many_names_weighs_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8192))
    for number in range(9):
        os.link(tmp_path / "a", tmp_path / f"b{number}")
    assert files.weigh(str(tmp_path)) == (8192, 10)
