"""`perilune warmup-data`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from perilune.errors import InvalidInputError, MissingDependencyError

INTERRUPTED = 130


def run(source: Path, out: Path, overrides: list[str], rewards: str | None, as_json: bool) -> int:
    """Makes warm-up data; gives the exit status: 1 if something failed or nothing is kept, 130 after Ctrl-C.

    A reward service of its own is started where none is given. Errors as `make`.
    """
    try:
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"warm-up data needs `pip install 'perilune[curate]'`: {error}") from error
    from perilune.concurrency import entered
    from perilune.curation.plan import read_as
    from perilune.local import own_reward
    from perilune.warmup_data.pipeline import make
    from perilune.warmup_data.plan import WarmupDataPlan

    plan = read_as(WarmupDataPlan, source, overrides)
    if not plan.writer.is_given:
        raise InvalidInputError("no model is given that writes: set writer.path, or writer.url and writer.model")
    if not plan.graders:
        raise InvalidInputError(
            "no graders are given: name them under [[graders]], or --set \"graders=[{name='math'}]\""
        )

    place = contextlib.nullcontext(rewards) if rewards else entered(own_reward())
    try:
        with place as address:
            report = make(plan, out, lambda line: print(line, file=sys.stderr, flush=True), address)
    except KeyboardInterrupt:
        print("perilune: stopped; answers are kept, and the same command goes on", file=sys.stderr)
        return INTERRUPTED
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(" → ".join(f"{number:,} {stage}" for stage, number in report["funnel"].items()))
        print(f"{report['num_kept']:,} paths in {out / 'warmup.jsonl'}; the report is {out / 'report.html'}")
    return _status(report)


def _status(report: dict[str, Any]) -> int:
    for row in report["rejected"]:
        print(f"perilune: {row['reason']}", file=sys.stderr)
    if failures := report["failures"]:
        print(f"perilune: {len(failures):,} failures, which the same command tries again; the first: "
              f"{failures[0]['place']}: {failures[0]['reason']}", file=sys.stderr)  # fmt: skip
    return 1 if report["rejected"] or failures or not report["num_kept"] else 0
