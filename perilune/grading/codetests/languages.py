"""The names by which datasets and models call a language, beside the sandbox's own."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES: Mapping[str, str] = {
    name: language
    for language, names in {
        "python": "py python pypy",
        "cpp": "c++ cc cxx cpp g++",
        "c": "c gcc",
        "java": "java",
        "javascript": "js javascript node nodejs mjs",
        "typescript": "ts typescript",
        "csharp": "cs c# csharp",
        "go": "go golang",
        "rust": "rs rust",
        "ruby": "rb ruby",
        "perl": "pl perl",
        "bash": "sh bash shell zsh",
        "ocaml": "ml ocaml",
        "lean": "lean",
        "lua": "lua",
        "php": "php",
        "r": "r",
    }.items()
    for name in names.split()
}
_VERSION = re.compile(r"(?<=[a-z+#])[\d.]+$")


def language_called(name: str) -> str:
    """The sandbox's name of a language: `python` for `py`, `Python3` and `python3.11`; other names as they are."""
    plain = name.strip().lower()
    return _NAMES.get(plain) or _NAMES.get(_VERSION.sub("", plain)) or plain
