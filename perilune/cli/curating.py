"""`perilune curate`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perilune.errors import MissingDependencyError, StateError

INTERRUPTED = 130  # as shells say it
GOES_ON = "what was finished is kept, and the same command goes on there"


def run(source: Path, out: Path, overrides: list[str], rewards: str | None, as_json: bool) -> int:
    """Curates, and prints each stage; gives the exit status: 1 if something of a row could not be found out, 130 if it
    was stopped by Ctrl-C.

    A reward service of its own is started where a stage grades and none is given. Errors as `curate`.
    """
    try:
        import datasketch  # noqa: F401
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"curation needs `pip install 'perilune[curate]'`: {error}") from error
    from perilune.curation.pipeline import curate
    from perilune.curation.plan import read_plan
    from perilune.curation.report import write_report

    plan = read_plan(source, overrides)
    grades = any(getattr(stage, "graders", None) and not stage.off() for stage in plan.stages().values())

    def work(address: str) -> dict[str, Any]:
        return curate(plan, out, lambda line: print(line, file=sys.stderr, flush=True), address)

    try:
        with _own_service() if grades and not rewards else contextlib.nullcontext(rewards or "") as address:
            report = work(address)
        page = write_report(report, out)
    except KeyboardInterrupt:
        print(f"perilune: stopped; {GOES_ON}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # the disk is full, or the folder is another user's
        raise StateError(f"cannot write to {out}: {error.strerror or error}; {GOES_ON}") from error
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(f"{report['num_kept']:,} prompts in {out / 'prompts.jsonl'}; the report is {page}")
    if num_failed := report["num_failed"]:
        print(f"{num_failed:,} questions could not be looked at: the same command tries them again", file=sys.stderr)
    return 1 if num_failed else 0


@contextlib.contextmanager
def _own_service() -> Iterator[str]:
    """A reward service for as long; the work stays in this thread, where Ctrl-C reaches it."""
    from perilune.local import own_reward

    service = own_reward()
    with asyncio.Runner() as runner:
        address = runner.run(_entered(service))
        try:
            yield address
        finally:
            runner.run(_left(service))


async def _entered(service: contextlib.AbstractAsyncContextManager[str]) -> str:
    return await service.__aenter__()


async def _left(service: contextlib.AbstractAsyncContextManager[str]) -> None:
    await service.__aexit__(None, None, None)
