"""The report at a benchmark's end: a table for people and, with --json FILE, the same figures for programs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value beside the peer's, measured in the same run; no peer and no ratio where there is none."""

    value: float
    unit: str
    peer: float | None = None
    ratio: float | None = None

    @staticmethod
    def against(peer: float, value: float, unit: str) -> Figure:
        """A value with its peer and value / peer; whether more is better follows from the unit."""
        return Figure(value, unit, peer, value / peer)


def machine() -> dict[str, str | int]:
    """The machine that the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
    }


def report(title: str, figures: dict[str, Figure], json_path: Path | None = None) -> None:
    """Prints the table; writes `{"figures": {name: {value, unit, peer, ratio}}, "machine": …}` if a path is given."""
    table = Table("figure", "value", "unit", "peer", "ratio", title=title, title_justify="left")
    for name, figure in figures.items():
        table.add_row(name, _text(figure.value), figure.unit, _text(figure.peer), _text(figure.ratio))
    Console(soft_wrap=True).print(table)
    if json_path:
        document = {"figures": {name: asdict(figure) for name, figure in figures.items()}, "machine": machine()}
        json_path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
