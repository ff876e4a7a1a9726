"""What is found of the languages on a machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from perilune.errors import InvalidInputError
from services.sandbox.harness import HARNESSES
from services.sandbox.languages import LANGUAGES, Absent, detect
from services.sandbox.languages.java import main_class, started_class
from services.sandbox.languages.language import Toolchain


@pytest.mark.slow
async def test_a_language_is_found_or_said_to_be_absent(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "versions.json"
    own = tmp_path / "opt" / "bin" / "lua"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\necho Lua 9.9 of our own\n")
    own.chmod(0o755)
    broken = tmp_path / "php"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    tools = {"lua": str(own), "php": str(broken), "lean": "no-such-program"}

    found = (await detect(tools, cache)).found
    assert list(found) == list(LANGUAGES)
    python, lua = found["python"], found["lua"]
    assert isinstance(python, Toolchain)
    assert python.version.startswith("Python 3.")
    assert python.is_warm
    assert Path(sys.base_prefix) in python.roots or Path(sys.base_prefix) == Path("/usr")
    assert isinstance(lua, Toolchain)
    assert (lua.version, tmp_path / "opt" in lua.roots) == ("Lua 9.9 of our own", True)
    for name in ("lean", "php"):
        assert isinstance(found[name], Absent)
        assert LANGUAGES[name].install in found[name].reason  # type: ignore[union-attr]

    own.write_text("#!/bin/sh\necho it is not asked again\n")
    os.utime(own, ns=(lua_time(cache), lua_time(cache)))
    again = await detect(tools, cache)
    assert again["lua"].version == "Lua 9.9 of our own"
    own.write_text("#!/bin/sh\necho Lua 10\n")
    assert (await detect(tools, cache))["lua"].version == "Lua 10"
    with pytest.raises(InvalidInputError, match="lean is not installed here: there is no no-such-program"):
        again["lean4"]


def lua_time(cache: Path) -> int:
    """When the program was last changed, as it was seen."""
    return json.loads(cache.read_text())["lua"]["fingerprint"][0][2]


def test_every_language_is_judged_by_assertions_in_one_of_two_ways() -> None:
    appended = {name for name, row in LANGUAGES.items() if row.with_tests}
    assert appended | set(HARNESSES) == set(LANGUAGES)
    assert appended & set(HARNESSES) == {"cpp"}  # for tests that its harness cannot keep apart


MAIN = "public static void main(String[] a) { }"


@pytest.mark.parametrize(
    ("source", "main", "file"),
    [
        (f"import java.util.*; public class Solution {{ {MAIN} }}", "Solution", "Solution"),
        (f"/* x */ public class Solution {{ {MAIN} }}", "Solution", "Solution"),
        (f'@SuppressWarnings("x") public final class Solution {{ {MAIN} }}', "Solution", "Solution"),
        (f"// public class Other {{}}\npublic class Solution {{ {MAIN} }}", "Solution", "Solution"),
        (f"/* public class Other {{ }} */ class Main {{ {MAIN} }}", "Main", "Main"),
        (f"class A {{ String s = \"public class B {{\"; char c = '}}'; }} class C {{ {MAIN} }}", "C", "C"),
        (f'public class P {{ String t = """\n }} public class Q {{ """; {MAIN} }}', "P", "P"),
        (f"public class P {{ class I {{ }} }} class M {{ {MAIN} }}", "M", "P"),
        ("record R(int x) { } public class Z<T extends Z<T>> { static void main(String... a) { } }", "Z", "Z"),
        ("", "Main", "Main"),
    ],
)
def test_javas_classes_are_found_in_its_code(source: str, main: str, file: str) -> None:
    assert (started_class(source), main_class(source)) == (main, file)
