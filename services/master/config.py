"""Settings of the master, beside those of every service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from perilune.channel import read_secret
from perilune.errors import InvalidInputError, SettingsError
from perilune.runtime.service import ServiceSettings


class MasterSettings(ServiceSettings):
    """Settings of the master, from the environment."""

    listen: str = "127.0.0.1:7040"
    max_request_mb: Annotated[int, Field(gt=0, le=64)] = 8  # a recipe, a version with its metrics: what it is asked
    database_url: str | None = None  # a SQLAlchemy URL with an async driver; SQLite in `home` if not given
    database_password_file: Path | None = None  # the password for it, where it does not stand in the URL
    image_hosts: tuple[str, ...] = ()  # from which images of prompts are fetched by http(s); other URLs are refused
    data_folders: tuple[Path, ...] = ()  # whose files recipes may name (`folders.py`)
    read_only: bool = False  # answer questions about runs and do nothing else: no bus, no fleet, no trainer
    record_only: bool = False  # the same, and record evaluations: the database is held, as by a master that works

    def make_home(self) -> None:
        """Makes the home. SettingsError if it cannot be a folder."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"PERILUNE_HOME {self.home} cannot be made a folder: {error.strerror}") from error

    @property
    def database(self) -> str:
        """The URL, with the password in it. InvalidInputError if the password's file cannot be read."""
        url = self.database_url or f"sqlite+aiosqlite:///{self.home / 'perilune.db'}"
        if self.database_password_file is None:
            return url
        password = read_secret(self.database_password_file, "PERILUNE_DATABASE_PASSWORD_FILE")
        try:
            return make_url(url).set(password=password).render_as_string(hide_password=False)
        except ArgumentError as error:
            raise InvalidInputError(f"PERILUNE_DATABASE_URL {url!r} cannot be used: {error}") from error
