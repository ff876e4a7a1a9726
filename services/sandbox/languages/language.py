"""A language: its needs of the machine, how it builds and runs a program, and a program to test it by."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.sandbox.job import Image, Limits

logger = logging.getLogger(__name__)

ZONES = Path("/usr/share/zoneinfo")

# What nearly every interpreter and compiler of a distribution needs: its programs, its libraries and the links to them.
SYSTEM = tuple(
    Path(path)
    for path in (
        *("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/local/bin", "/usr/local/lib"),
        *("/bin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"),
        str(ZONES),
    )
)
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"

# Compilers take more than the programs they are for.
COMPILE_LIMITS = Limits(
    cpu_s=30.0, wall_s=60.0, memory_bytes=2 << 30, num_processes=128, file_bytes=128 << 20, disk_bytes=256 << 20
)

# A program with its tests behind it, as one text that says a word once the tests came to their end, and not if the
# program left before. The word is not to be guessed; names that hold it are the program's to leave alone.
WithTests = Callable[[str, str, str], str]


def last_line(line: str) -> WithTests:
    """Appends a line that prints the word (`WORD`) below tests that run from top to bottom."""
    return lambda program, tests, word: f"{program}\n{tests}\n{line.replace('WORD', word)}\n"


SELF_TEST_STDIN = b"3 4\n"
SELF_TEST_STDOUT = b"25\n"


def zones() -> Mapping[str, Path]:
    """The folder of time zones, and what is shown there if the host has none: those of the package tzdata."""
    if (ZONES / "UTC").exists():
        return {}
    package = importlib.util.find_spec("tzdata")
    folder = Path(package.origin).parent / "zoneinfo" if package and package.origin else None
    if folder is None:
        logger.warning("programs will find no time zones, and take all of them for UTC: apt-get install tzdata")
    return {str(ZONES): folder} if folder else {}


Tools = Mapping[str, Path]


@dataclass(frozen=True)
class Source:
    """A program as its compiler sees it: the main file, all files beside it, and more arguments."""

    main: str
    text: str
    paths: Sequence[str] = ()
    arguments: Sequence[str] = ()

    def with_extension(self, *extensions: str) -> list[str]:
        """The main file, and those of the other files that end so."""
        return [self.main, *(path for path in self.paths if path.endswith(extensions))]


@dataclass(frozen=True)
class Language:
    """One row of the table.

    `build` gives the compiler's command line; it runs in a work folder that holds the sources, and what `keep` matches
    afterwards is the program. `run` gives the command line that starts it, where the files lie in the current folder
    and what was built lies in the folder that it is given.
    """

    name: str
    extension: str
    # What it is made of: a tool's name, and the programs that can play it, best first.
    needs: Mapping[str, Sequence[str]]
    install: str
    version: Callable[[Tools], Sequence[str]]
    run: Callable[[Tools, Source, str], Sequence[str]]
    # Reads two numbers and prints the sum of their squares.
    self_test: str
    aliases: Sequence[str] = ()
    build: Callable[[Tools, Source], Sequence[str]] | None = None
    keep: Sequence[str] = ()
    # The main file's name; some compilers want it to say what is inside.
    main: Callable[[str], str] | None = None
    # What is judged by assertions, where no harness keeps the tests apart from the program.
    with_tests: WithTests | None = None
    # The programs themselves, where those on the PATH only lead to them.
    resolve: Callable[[Tools], Tools] = lambda tools: tools
    # Host folders that its programs and its compiler read.
    roots: Callable[[Tools], Sequence[Path]] = lambda _: SYSTEM
    environment: Mapping[str, str] = field(default_factory=dict)
    compile_limits: Limits = COMPILE_LIMITS
    # Of memory, that the interpreter itself takes before a program does anything.
    overhead_bytes: int = 0
    # The interpreter's arguments for a program that may have so many bytes; else it would go by the host's memory.
    heap: Callable[[int], Sequence[str]] = lambda _: ()
    warm: str = ""
    # Why an image's own installation of it cannot be used, where that is so.
    not_in_images: str = ""
    has_sessions: bool = False

    def source(self, text: str, paths: Sequence[str] = (), arguments: Sequence[str] = ()) -> Source:
        """Makes a source of a program's text, under the file name that the language wants."""
        main = self.main(text) if self.main else f"main{self.extension}"
        return Source(main, text, paths, arguments)


@dataclass(frozen=True)
class Toolchain:
    """A language as this machine has it, or an image; then the tools' paths are those inside."""

    language: Language
    tools: Tools
    version: str
    roots: Sequence[Path]
    image: Image | None = None

    @property
    def is_warm(self) -> bool:
        """True if the jail's warm interpreter is this very one."""
        if not self.language.warm or self.image:
            return False
        own = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        return any(tool.resolve() == own for tool in self.tools.values())
