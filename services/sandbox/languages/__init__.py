"""The languages. A new one is one file here and one row of the table.

What a machine lacks is found out when the service starts, and said: a language is a row of the answer either way.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from perilune.errors import InvalidInputError
from services.sandbox.languages import (
    bash,
    c,
    cpp,
    csharp,
    go,
    java,
    javascript,
    lean,
    lua,
    ocaml,
    perl,
    php,
    python,
    r,
    ruby,
    rust,
    typescript,
)
from services.sandbox.languages.language import SYSTEM, Language, Toolchain

logger = logging.getLogger(__name__)

LANGUAGES: Mapping[str, Language] = {
    module.LANGUAGE.name: module.LANGUAGE
    for module in (
        *(python, c, cpp, go, rust, java, javascript, typescript, bash, php, csharp),
        *(perl, ruby, lua, r, ocaml, lean),
    )
}
_BY_NAME = {name: language for language in LANGUAGES.values() for name in (language.name, *language.aliases)}
# The installation is looked at again after this.
_FOUND_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Absent:
    """A language that this machine does not have, and what to do about it."""

    language: Language
    reason: str


Found = Toolchain | Absent


class Toolchains:
    """The toolchains that this machine has."""

    def __init__(self, found: Mapping[str, Found]) -> None:
        self.found = found

    def __getitem__(self, name: str) -> Toolchain:
        """The toolchain of a language by its name or alias. InvalidInputError says what there is, or what to do."""
        language = language_named(name)
        found = self.found[language.name]
        if isinstance(found, Absent):
            raise InvalidInputError(f"{language.name} is not installed here: {found.reason}")
        return found


def language_named(name: str) -> Language:
    """A row of the table by name or alias. InvalidInputError names the nearest."""
    if name.lower() in _BY_NAME:
        return _BY_NAME[name.lower()]
    near = difflib.get_close_matches(name.lower(), _BY_NAME, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(LANGUAGES)}"
    raise InvalidInputError(f"there is no language {name!r}; {hint}" if name else f"no language was given; {hint}")


async def detect(configured: Mapping[str, str] | None = None, cache: Path | None = None) -> Toolchains:
    """Looks for every language at once.

    Args:
        configured: programs by tool, such as {"lean": "/opt/lean/bin/lean"}, instead of those on the PATH.
        cache: a file that keeps versions from start to start, for as long as the programs stay the same.
    """
    known = _read_cache(cache)
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="detect") as threads:
        loop = asyncio.get_running_loop()
        looks = [
            loop.run_in_executor(threads, _look, language, configured or {}, known.get(language.name))
            for language in LANGUAGES.values()
        ]
        found = dict(zip(LANGUAGES, await asyncio.gather(*looks), strict=True))
    _write_cache(cache, found)
    present = [name for name, language in found.items() if isinstance(language, Toolchain)]
    absent = [name for name in found if name not in present]
    logger.info("languages: %s; absent: %s", ", ".join(present), ", ".join(absent) or "none")
    return Toolchains(found)


def _look(language: Language, configured: Mapping[str, str], known: Mapping[str, object] | None) -> Found:
    tools: dict[str, Path] = {}
    for tool, programs in language.needs.items():
        names = [configured[tool]] if tool in configured else programs
        program = next(filter(None, map(shutil.which, names)), None)
        if not program:
            return Absent(language, f"there is no {' or '.join(names)}; {language.install}")
        tools[tool] = Path(program).absolute()
    try:
        tools = dict(language.resolve(tools))
        if known and known["fingerprint"] == _fingerprint(tools):
            roots = [Path(root) for root in known["roots"]]  # type: ignore[attr-defined]
            return Toolchain(language, tools, str(known["version"]), roots)
        answer = subprocess.run(
            [str(part) for part in language.version(tools)],
            capture_output=True,
            text=True,
            timeout=_FOUND_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        roots = _roots(language, tools)
    except (OSError, subprocess.SubprocessError) as error:
        return Absent(language, f"{next(iter(tools.values()))} does not answer ({error}); {language.install}")
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return Toolchain(language, tools, lines[0] if lines else "", roots)


def _roots(language: Language, tools: Mapping[str, Path]) -> list[Path]:
    """The folders that the language names, and the installation of each tool that lies elsewhere, such as /opt/node."""
    roots = list(dict.fromkeys(language.roots(tools)))
    for path in (path for tool in tools.values() for path in (tool, tool.resolve())):
        if not any(path.is_relative_to(root) for root in roots):
            prefix = path.parent.parent if path.parent.name == "bin" else path.parent
            roots.append(path if prefix == Path("/") else prefix)
    return [root for root in roots if root.exists()]


def _fingerprint(tools: Mapping[str, Path]) -> list[list[object]]:
    """Fingerprint of the programs, and of the folders shown to every language: an upgrade may change either."""
    programs = [[tool, str(path), os.stat(path).st_mtime_ns] for tool, path in sorted(tools.items())]
    return [*programs, list(map(str, SYSTEM))]


def _read_cache(cache: Path | None) -> dict[str, Mapping[str, object]]:
    try:
        return json.loads(cache.read_text()) if cache else {}
    except (OSError, ValueError):
        return {}


def _write_cache(cache: Path | None, found: Mapping[str, Found]) -> None:
    if not cache:
        return
    document = {
        name: {
            "fingerprint": _fingerprint(toolchain.tools),
            "version": toolchain.version,
            "roots": [str(root) for root in toolchain.roots],
        }
        for name, toolchain in found.items()
        if isinstance(toolchain, Toolchain)
    }
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(document))
    temporary.replace(cache)
