"""Programs made ready to run: built once, kept by what they are made of, shown read-only to the jobs that run them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.errors import InvalidInputError
from services.sandbox.images.toolchains import Images
from services.sandbox.job import File, Jail, Job, JobOutcome, Limits, Verdict
from services.sandbox.languages import Toolchains
from services.sandbox.languages.language import SEARCH_PATH, Source, Toolchain, zones
from services.sandbox.messages import check_path, read_files

logger = logging.getLogger(__name__)

_INSIDE = "/perilune/built"  # where a job in an image finds what was built; elsewhere it lies where it lies on the host


@dataclass(frozen=True)
class Runnable:
    """A program that can be started any number of times."""

    toolchain: Toolchain
    source: Source
    files: Sequence[File]
    folder: Path | None = None  # what was built
    compilation: JobOutcome | None = None
    zones: Mapping[str, Path] = field(default_factory=dict)  # where the host has no time zones

    @property
    def compiles(self) -> bool:
        """True if there was nothing to compile, or it compiled."""
        return self.compilation is None or self.compilation.verdict == Verdict.OK

    def job(
        self,
        limits: Limits,
        stdin: bytes = b"",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        files: Sequence[File] = (),
        return_files: Sequence[str] = (),
        mounts: Mapping[str, Path] | None = None,
    ) -> Job:
        """One start of the program, its files in the work folder and those given besides."""
        language = self.toolchain.language
        image = self.toolchain.image
        built = {_INSIDE if image else str(self.folder): self.folder} if self.folder else {}
        start, *rest = language.run(self.toolchain.tools, self.source, next(iter(built), ""))
        together = {file.path: file for file in (*self.files, *files)}
        return Job(
            argv=[start, *language.heap(limits.memory_bytes), *rest, *arguments],
            files=list(together.values()),
            stdin=stdin,
            environment=_environment(self.toolchain) | dict(environment or {}),
            limits=replace(limits, memory_bytes=limits.memory_bytes + language.overhead_bytes),
            readable=[*self.toolchain.roots, *([] if image else built.values())],
            mounts={**(mounts or {}), **(built if image else self.zones)},
            image=image.root if image else None,
            return_files=return_files,
            warm=language.warm if self.toolchain.is_warm else "",
        )


@dataclass
class _Entry:
    """A build in the cache; it is not thrown away while somebody uses it."""

    folder: Path
    outcome: JobOutcome
    num_bytes: int
    num_users: int = 0


@dataclass
class Builds:
    """Compiles each program once, however often it is asked for.

    `folder` belongs to this service alone; it is emptied at the start, and holds at most `max_bytes` of what no job
    uses at the moment.
    """

    jail: Jail
    toolchains: Toolchains
    images: Images
    folder: Path
    max_bytes: int
    zones: Mapping[str, Path] = field(default_factory=zones)
    _entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    _under_way: dict[str, asyncio.Task[_Entry]] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def ready(self, program: api.Program, limits: Limits | None = None) -> AsyncIterator[Runnable]:
        """The program, built if its language builds; see `Runnable.compiles`. It stays for as long as the context.

        Args:
            program: as the API has it.
            limits: of the compiler; the language's own if not given.

        Raises:
            InvalidInputError: no such language here, no such image, or a wrong path.
            BusyError: the compiler cannot be started now.
        """
        if program.image:
            async with (
                self.images.toolchain(program.image, program.language) as toolchain,
                self._ready(program, toolchain, limits) as runnable,
            ):
                yield runnable
        else:
            async with self._ready(program, self.toolchains[program.language], limits) as runnable:
                yield runnable

    @contextlib.asynccontextmanager
    async def _ready(
        self, program: api.Program, toolchain: Toolchain, limits: Limits | None
    ) -> AsyncIterator[Runnable]:
        language, files = toolchain.language, read_files(program.files)
        source = language.source(program.source, [file.path for file in files], program.compiler_arguments)
        main = File(check_path(source.main), program.source.encode("utf-8", "surrogateescape"))
        if main.path in source.paths:
            raise InvalidInputError(f"file {main.path!r} has the name of the program's own source")
        if not language.build:
            yield Runnable(toolchain, source, [*files, main], zones=self.zones)
            return
        entry = await self._entry(toolchain, source, [main, *files], limits or language.compile_limits)
        entry.num_users += 1
        try:
            yield Runnable(toolchain, source, files, entry.folder, entry.outcome, self.zones)
        finally:
            entry.num_users -= 1
            self._make_room()

    async def _entry(self, toolchain: Toolchain, source: Source, files: Sequence[File], limits: Limits) -> _Entry:
        key = _key(toolchain, source, files)
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._build(key, toolchain, source, files, limits))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        # One caller that leaves must not take the build from the others.
        return await asyncio.shield(task)

    async def _build(
        self, key: str, toolchain: Toolchain, source: Source, files: Sequence[File], limits: Limits
    ) -> _Entry:
        language = toolchain.language
        assert language.build
        outcome = await self.jail.run(
            Job(
                argv=language.build(toolchain.tools, source),
                files=files,
                environment=_environment(toolchain),
                limits=limits,
                readable=toolchain.roots,
                image=toolchain.image.root if toolchain.image else None,
                return_files=language.keep,
            )
        )
        if outcome.verdict == Verdict.OK and not outcome.files:
            outcome = replace(outcome, verdict=Verdict.COMPILE_ERROR, reason="the compiler left no program behind")
        entry = _Entry(self.folder / key, replace(outcome, files=()), sum(len(file.content) for file in outcome.files))
        if outcome.verdict == Verdict.OK:
            await asyncio.to_thread(_write, entry.folder, outcome.files)
            self._entries[key] = entry
        return entry

    def _make_room(self) -> None:
        """Throws out what was used longest ago, until the rest fits."""
        total = sum(entry.num_bytes for entry in self._entries.values())
        for key, entry in list(self._entries.items())[:-1]:  # not what was asked for just now
            if total <= self.max_bytes:
                return
            if not entry.num_users:
                del self._entries[key]
                shutil.rmtree(entry.folder)
                total -= entry.num_bytes


def _environment(toolchain: Toolchain) -> dict[str, str]:
    own = toolchain.image.environment if toolchain.image else {}
    return {"PATH": SEARCH_PATH, **own, **toolchain.language.environment}


def _key(toolchain: Toolchain, source: Source, files: Sequence[File]) -> str:
    digest = hashlib.sha256()
    image = toolchain.image.digest if toolchain.image else ""
    parts = [toolchain.language.name, toolchain.version, image, source.main, *source.arguments]
    for part in [*(part.encode("utf-8", "surrogateescape") for part in parts), b""]:
        digest.update(len(part).to_bytes(8, "little") + part)
    for file in files:
        for part in (file.path.encode("utf-8", "surrogateescape"), file.content):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _write(folder: Path, files: Sequence[File]) -> None:
    """Lays the files down so that any uid of the jail may read and run them, and none may change them."""
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(0o555 if file.executable else 0o444)
    for inside in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        inside.chmod(0o755)
