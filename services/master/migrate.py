"""`python -m services.master.migrate`: brings the database to this version's schema, and ends.

A master does the same at its start; a cluster does it before anything is installed.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from perilune.errors import PeriluneError, UnavailableError
from perilune.runtime.service import patiently
from services.master.config import MasterSettings
from services.master.schema import OlderSchemaError
from services.master.single_master import single_master
from services.master.store import Store


async def migrate(settings: MasterSettings) -> None:
    """Waits for the database as long as PERILUNE_PATIENCE_S says, and for a master that works on it to end.

    Raises:
        StateError: a master works on the database.
        InvalidInputError: the database rejects the user, or is of a newer version.
        UnavailableError: it does not answer.
    """
    settings.make_home()
    async with (
        patiently(single_master, settings.database, patience_s=settings.patience_s),
        Store.open(settings.database),
    ):
        logging.info("the database has this version's schema")


async def migrate_if_older(settings: MasterSettings) -> None:
    """Brings a database that is only to be read to this version's schema, if need be. Raises as `migrate` does."""
    try:
        async with Store.open(settings.database, migrate=False):
            pass
    except OlderSchemaError:
        await migrate(settings)


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname).1s migrate: %(message)s")
    try:
        asyncio.run(migrate(MasterSettings()))
    except PeriluneError as error:
        logging.error("%s", error)
        sys.exit(1 if isinstance(error, UnavailableError) else 2)
