"""`python -m services.master.migrate`: brings the database to this version's schema, and ends.

A master does the same at its start; a cluster does it before anything is installed.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from perilune.errors import PeriluneError, UnavailableError
from perilune.service import patiently
from services.master.config import MasterSettings
from services.master.sole import sole_master
from services.master.store import Store


async def migrate(settings: MasterSettings) -> None:
    """Waits for the database as long as PERILUNE_PATIENCE_S says, and for a master that works on it to end.

    Raises:
        StateError: a master works on the database.
        InvalidInputError: the database turns us away.
        UnavailableError: it does not answer.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    async with (
        patiently(sole_master, settings.database, patience_s=settings.patience_s),
        Store.open(settings.database),
    ):
        logging.info("the database has this version's schema")


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname).1s migrate: %(message)s")
    try:
        asyncio.run(migrate(MasterSettings()))
    except PeriluneError as error:
        logging.error("%s", error)
        sys.exit(1 if isinstance(error, UnavailableError) else 2)
