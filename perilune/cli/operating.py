"""What operators do with a home or a database: migrations."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from perilune.cli.console import Console

console = Console(highlight=False, soft_wrap=True, markup=False)


def migrate(home: Path, revision: str, as_json: bool, *, show: bool) -> None:
    """Brings a home's database, or the one of PERILUNE_DATABASE_URL, to a revision, or says which it has."""
    os.environ["PERILUNE_HOME"] = str(home)
    from services.master.config import MasterSettings
    from services.master.migrate import migrate as bring
    from services.master.migrate import revision_now
    from services.master.schema import revisions

    settings = MasterSettings()
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
