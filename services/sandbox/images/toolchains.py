"""The languages of an image: their programs are looked for in it, and asked for their versions in a jail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perilune.errors import InvalidInputError, UnavailableError
from services.sandbox.images.store import ImageStore
from services.sandbox.jail import system
from services.sandbox.jail.program import WITH_MOUNTS
from services.sandbox.job import Image, Jail, Job, Verdict
from services.sandbox.languages import LANGUAGES, Absent, Found, Toolchains, language_named
from services.sandbox.languages.language import COMPILE_LIMITS, SEARCH_PATH, Language, Toolchain


@dataclass
class Images:
    """The images of a service, and what was found in them."""

    store: ImageStore
    jail: Jail
    _found: dict[tuple[str, str, str], Toolchain] = field(default_factory=dict)  # by name, digest and language

    def list(self) -> list[Image]:
        """Lists the stored images."""
        return self.store.list()

    @contextlib.asynccontextmanager
    async def toolchain(self, name: str, language: str) -> AsyncIterator[Toolchain]:
        """A language of an image, which stays for as long as the context.

        InvalidInputError: no such image, or it has no such language; the message says what to do.
        """
        row = language_named(language)
        with self._use(name) as image:
            found = await self._find(image, row)
            if isinstance(found, Absent):
                raise InvalidInputError(f"{row.name} is not in image {name!r}: {found.reason}")
            yield found

    async def toolchains(self, name: str) -> Toolchains:
        """All languages of an image. InvalidInputError: there is none of this name."""
        with self._use(name) as image:
            found = await asyncio.gather(*(self._find(image, language) for language in LANGUAGES.values()))
        return Toolchains(dict(zip(LANGUAGES, found, strict=True)))

    @contextlib.contextmanager
    def _use(self, name: str) -> Iterator[Image]:
        level = self.jail.isolation.level
        if level not in WITH_MOUNTS:
            raise InvalidInputError(
                f"image {name!r} cannot be shown under the level {level!r}, which has no mounts of its own; give the "
                f"service the rights for {', '.join(WITH_MOUNTS[1:])} (docs/sandbox.md), or leave the image out"
            )
        with self.store.use(name) as image:
            yield image

    async def _find(self, image: Image, language: Language) -> Found:
        key = (image.name, image.digest, language.name)
        if key in self._found:
            return self._found[key]
        found = await self._look(image, language)
        if isinstance(found, Toolchain):  # what did not answer may do so another time
            self._found[key] = found
        return found

    async def _look(self, image: Image, language: Language) -> Found:
        if language.not_in_images:
            return Absent(language, language.not_in_images)
        tools: dict[str, Path] = {}
        folders = image.environment.get("PATH", SEARCH_PATH).split(":")
        for tool, programs in language.needs.items():
            found = find_program(image.root, programs, folders)
            if found is None:
                names = " or ".join(os.path.basename(program) for program in programs)
                return Absent(language, f"there is no {names} in it; add an image that has one, or leave the image out")
            tools[tool] = found
        version = await self._ask_version(image, language, tools)
        return version if isinstance(version, Absent) else Toolchain(language, tools, version, (), image)

    async def _ask_version(self, image: Image, language: Language, tools: dict[str, Path]) -> str | Absent:
        argv = [str(part) for part in language.version(tools)]
        environment = {**image.environment, **language.environment}
        job = Job(argv, environment=environment, limits=COMPILE_LIMITS, image=image.root)
        outcome = await self.jail.run(job)
        if outcome.verdict.is_the_sandboxs_fault:
            raise UnavailableError(f"image {image.name!r} cannot be shown here: {outcome.reason}")
        said = (outcome.stdout.content or outcome.stderr.content).decode("utf-8", "replace").strip().splitlines()
        if outcome.verdict is not Verdict.OK:
            why = f"{outcome.reason}: {said[-1]}" if said else outcome.reason
            return Absent(language, f"{argv[0]} does not answer in it ({why})")
        return said[0] if said else ""


def find_program(root: Path, programs: Sequence[str], folders: Sequence[str]) -> Path | None:
    """The first of the programs that is in the root, with its path inside; links are followed within the root."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for program in programs:
            for path in [program] if program.startswith("/") else [f"{folder}/{program}" for folder in folders]:
                if _is_executable(descriptor, path):
                    return Path(path)
    finally:
        os.close(descriptor)
    return None


def _is_executable(root: int, path: str) -> bool:
    try:
        descriptor = system.open_within(root, os.fsencode(path), os.O_PATH)
    except OSError:
        return False
    try:
        mode = os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
    return stat.S_ISREG(mode) and bool(mode & 0o111)
