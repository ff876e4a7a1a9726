"""`perilune curate`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from perilune.errors import MissingDependencyError


def run(source: Path, out: Path, overrides: list[str], rewards: str | None, as_json: bool) -> int:
    """Curates, and prints each stage; gives the exit status: 1 if something of a row could not be found out.

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
    from perilune.local import own_reward

    plan = read_plan(source, overrides)
    grades = any(getattr(stage, "graders", None) and not stage.off() for stage in plan.stages().values())

    def work(address: str) -> dict[str, Any]:
        return curate(plan, out, lambda line: print(line, file=sys.stderr, flush=True), address)

    async def with_service() -> dict[str, Any]:
        async with own_reward() as address:
            return await asyncio.to_thread(work, address)

    report = asyncio.run(with_service()) if grades and not rewards else work(rewards or "")
    page = write_report(report, out)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(f"{report['num_kept']:,} prompts in {out / 'prompts.jsonl'}; the report is {page}")
    if num_failed := report["num_failed"]:
        print(f"{num_failed:,} questions could not be looked at: the same command tries them again", file=sys.stderr)
    return 1 if num_failed else 0
