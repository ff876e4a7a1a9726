"""What operators do with a home or a database: migrations, backups, deleting what is old."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perilune.cli.console import Console
from perilune.cli.facts import iso_time
from perilune.errors import AlreadyExistsError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from services.master.config import MasterSettings

console = Console(highlight=False, soft_wrap=True, markup=False)


def migrate(home: Path, revision: str, as_json: bool, *, show: bool) -> None:
    """Brings a home's database, or the one of PERILUNE_DATABASE_URL, to a revision, or says which it has."""
    settings = _settings(home)
    from services.master.migrate import migrate as bring
    from services.master.migrate import revision_now
    from services.master.schema import revisions

    before = asyncio.run(revision_now(settings)) if show or _exists(settings.database) else ""
    after = before if show else asyncio.run(bring(settings, revision))
    if as_json:
        print(json.dumps({"before": before or None, "after": after or None, "revisions": revisions()}))
    elif show:
        console.print(f"the database has revision {before or 'none'}; this version knows {', '.join(revisions())}")
    else:
        console.print(
            f"the database has revision {after}" + ("" if before == after else f"; it had {before or 'none'}")
        )


def _exists(database: str) -> bool:
    """Tests whether a database is there already: asking an embedded one would make it."""
    return not database.startswith("sqlite") or Path(database.partition(":///")[2]).is_file()


MANIFEST, ROWS, FOLDER = "manifest.json", "run.db", "run"
FORMAT = 1


def backup(run_id: str, home: Path, out: Path) -> None:
    """Writes a run to one file: its rows, checkpoints and versions. The run may go on meanwhile.

    Checkpoints are read first: rows that are newer have the batches from which the versions since are made again.
    """
    settings = _settings(home)
    from services.master.archive import copy_out

    part = out.with_name(f".{out.name}.part")
    with tempfile.TemporaryDirectory(dir=out.resolve().parent, prefix=".backup-") as folder:
        place = Path(folder)
        _copy_folder(home / run_id, place / FOLDER)
        run = asyncio.run(copy_out(settings.database, run_id, place / ROWS))
        manifest = {
            "format": FORMAT,
            "perilune": metadata.version("perilune"),
            "run": run_id,
            "version": run.version,
            "prompts_digest": run.prompts_digest,
            "num_rows": run.num_rows,
            "home": str(home.resolve()),
            "time": iso_time(time.time_ns()),
            "sha256": {str(path.relative_to(place)): _digest(path) for path in _files(place)},
        }
        (place / MANIFEST).write_text(json.dumps(manifest, indent=2))
        with tarfile.open(part, "w") as archive:
            for name in (MANIFEST, ROWS, FOLDER):
                if (place / name).exists():
                    archive.add(place / name, name)
    part.replace(out)
    where = "no version yet" if run.version is None else f"version {run.version}"
    console.print(f"{out}: {run_id} at {where}, {run.num_rows:,} rows, {out.stat().st_size:,} bytes")


def restore(file: Path, home: Path) -> None:
    """Puts a backup into a home, as a stopped run.

    Raises:
        InvalidInputError: the file is no backup, or damaged.
        AlreadyExistsError: the home has a run of that id.
    """
    settings = _settings(home)
    from services.master.archive import copy_in

    settings.make_home()
    with tempfile.TemporaryDirectory(dir=home, prefix=".restore-") as folder:
        place = Path(folder)
        manifest = _unpacked(file, place)
        run_id = manifest["run"]
        if (home / run_id).exists():
            raise AlreadyExistsError(f"{home / run_id} is there already; move it away, or restore to another --home")
        asyncio.run(copy_in(settings.database, place / ROWS, manifest["home"], str(home.resolve())))
        if (place / FOLDER).exists():
            (place / FOLDER).rename(home / run_id)
    console.print(f"{run_id} is in {home}; `perilune run resume {run_id} --home {home}` goes on with it")
    if manifest["prompts_digest"]:
        console.print(f"its prompts must be those of before, by their digest {manifest['prompts_digest']}")


def delete_runs(run_ids: Sequence[str], home: Path, days: float | None, *, dry_run: bool) -> None:
    """Deletes ended runs, with their folders: those that are named, or those submitted so many days ago or earlier."""
    settings = _settings(home)
    from services.master import archive
    from services.master.single_master import has_master

    if bool(run_ids) == (days is not None):
        raise InvalidInputError("name runs to delete, or --older-than DAYS")
    if not _exists(settings.database):
        raise NotFoundError(f"there are no runs in {home}; name another folder with --home")
    if days is not None:
        run_ids = asyncio.run(archive.ended_before(settings.database, time.time_ns() - int(days * 86_400e9)))
    for run_id in run_ids:
        if not dry_run:
            is_driven = asyncio.run(has_master(settings.database))
            asyncio.run(archive.delete_run(settings.database, run_id, also_active=not is_driven))
            shutil.rmtree(home / run_id, ignore_errors=True)
        console.print(f"{'would delete' if dry_run else 'deleted'} {run_id}")
    if not run_ids:
        console.print("no run is as old")


def _settings(home: Path) -> MasterSettings:
    os.environ["PERILUNE_HOME"] = str(home)
    from services.master.config import MasterSettings

    return MasterSettings()


def _copy_folder(source: Path, target: Path) -> None:
    """Copies a run's folder; what a trainer deletes meanwhile is left out, for it has written something newer."""
    if not source.is_dir():
        return
    for path in sorted(_files(source)):
        there = target / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(path, there)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(file: Path, folder: Path) -> dict[str, Any]:
    """Unpacks a backup and checks every file of it by its digest; returns what the backup says of itself."""
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        digests = manifest["sha256"]
        if manifest["format"] != FORMAT or not is_run_id(manifest["run"]):
            raise InvalidInputError(f"{file} is a backup of another version of perilune, {manifest['perilune']}")
    except FileNotFoundError as error:
        raise InvalidInputError(f"{file} cannot be read as a backup: {error}") from error
    except (tarfile.TarError, ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInputError(f"{file} is no backup of a run, or damaged: {error}") from error
    damaged = sorted(name for name, digest in digests.items() if _digest_or_none(folder / name) != digest)
    if damaged:
        raise InvalidInputError(f"{file} is damaged: {', '.join(damaged[:5])} is not what was written")
    return manifest


def _digest_or_none(path: Path) -> str | None:
    return _digest(path) if path.is_file() else None


def is_run_id(text: object) -> bool:
    """Tests whether a text can be a run's id, and so a folder's name."""
    return isinstance(text, str) and re.fullmatch(r"[a-z0-9_-]{1,64}", text) is not None
