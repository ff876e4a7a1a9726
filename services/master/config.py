"""What the master is told from outside, beside what every service is told."""

from __future__ import annotations

from perilune.service import ServiceSettings


class MasterSettings(ServiceSettings):
    listen: str = "127.0.0.1:7040"
    database_url: str | None = None  # a SQLAlchemy URL with an async driver; SQLite in `home` if not given
    read_only: bool = False  # answer questions about runs and do nothing else: no bus, no fleet, no trainer

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.home / 'perilune.db'}"
