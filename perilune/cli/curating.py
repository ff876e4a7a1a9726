"""`perilune curate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from perilune.errors import MissingDependencyError


def run(source: Path, out: Path, overrides: list[str], as_json: bool) -> int:
    """Curates, and prints each stage; gives the exit status. Errors as `curate`."""
    try:
        import datasketch  # noqa: F401
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"curation needs `pip install 'perilune[curate]'`: {error}") from error
    from perilune.curation.pipeline import curate
    from perilune.curation.plan import read_plan
    from perilune.curation.report import write_report

    report = curate(read_plan(source, overrides), out, lambda line: print(line, file=sys.stderr))
    page = write_report(report, out)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(f"{report['num_kept']:,} prompts in {out / 'prompts.jsonl'}; the report is {page}")
    return 0
