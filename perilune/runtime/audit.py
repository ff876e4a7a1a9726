"""The audit log: which caller changed what, one line of JSON each, beside the runs.

Written once a change was made, or was refused: when, which caller with which roles, what, on which run, how it went.
Recipes, tokens and answers are not in it. The file is its owner's alone and is only added to.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from perilune.errors import PeriluneError
from perilune.runtime.auth import caller

logger = logging.getLogger(__name__)

FILE = "audit.jsonl"


class Audit:
    """An audit log in a folder; None: only in the service's log."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / FILE if folder else None

    @contextlib.contextmanager
    def noted(self, action: str, run_id: str, **facts: object) -> Iterator[None]:
        """Notes an action when the body ends, with the words of the error that ends it."""
        try:
            yield
        except PeriluneError as error:
            self._note(action, run_id, facts | {"refused": f"{type(error).__name__}: {error}"[:500]})
            raise
        self._note(action, run_id, facts)

    def _note(self, action: str, run_id: str, facts: dict[str, object]) -> None:
        who = caller()
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "caller": who.name,
            "roles": sorted(who.roles),
            "action": action,
            "run": run_id[:200],
        } | {name: value for name, value in facts.items() if value not in ("", None, 0, [])}
        text = json.dumps(line)
        logger.info("audit: %s", text)
        if self._path is None:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text + "\n")
        except OSError as error:
            logger.error("the audit log %s cannot be written: %s", self._path, error.strerror)
