"""`python -m services.master.migrate [REVISION]`: brings the database to this version's schema, or to a revision, and
ends; `perilune migrate` is the same.

A master brings it to its own schema at its start; a cluster does it before anything is installed.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from sqlalchemy import Connection

from perilune import logs
from perilune.errors import PeriluneError, UnavailableError
from perilune.runtime.service import patiently
from services.master.config import MasterSettings
from services.master.schema import OlderSchemaError, migrate_to, revision_of, revisions
from services.master.single_master import single_master
from services.master.store import Store, opened


async def migrate(settings: MasterSettings, revision: str = "") -> str:
    """Brings the database to a revision, forward or back, or to this version's; returns what it has then.

    Waits for the database as long as PERILUNE_PATIENCE_S says, and for a master that works on it to end.

    Raises:
        StateError: a master works on the database.
        InvalidInputError: there is no such revision, the database rejects the user, or is of a newer version.
        UnavailableError: it does not answer.
    """
    settings.make_home()
    wanted = revision or revisions()[-1]

    def prepare(connection: Connection, shown: str) -> None:
        migrate_to(connection, shown, wanted)

    async with (
        patiently(single_master, settings.database, patience_s=settings.patience_s),
        patiently(opened, settings.database, prepare, patience_s=settings.patience_s),
    ):
        return wanted


async def revision_now(settings: MasterSettings) -> str:
    """The revision that the database has; empty where it has no tables. Raises as `migrate` does, but StateError."""
    found: list[str] = []
    async with opened(settings.database, lambda *where: found.append(revision_of(*where) or "")):
        return found[0]


async def migrate_if_older(settings: MasterSettings) -> None:
    """Brings a database that is only to be read to this version's schema, if need be. Raises as `migrate` does."""
    try:
        async with Store.open(settings.database, migrate=False):
            pass
    except OlderSchemaError:
        await migrate(settings)


if __name__ == "__main__":
    logs.set_up("migrate")
    try:
        logging.info("the database has the schema %s", asyncio.run(migrate(MasterSettings(), *sys.argv[1:2])))
    except PeriluneError as error:
        logging.error("%s", error)
        sys.exit(1 if isinstance(error, UnavailableError) else 2)
