"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perilune.errors import MissingDependencyError

if TYPE_CHECKING:  # the client brings gRPC along, which drawing does not need
    pass
from perilune.cli.facts import evaluations_of, modes_of, series
from perilune.cli.report import Report


def save_curves(report: Report, path: Path) -> bool:
    """Draws reward, held-out accuracy with its 95 % band, and mean length into a PNG; False for a run without curves.

    MissingDependencyError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, PercentFormatter
    except ImportError as error:
        raise MissingDependencyError(
            "a picture of the curves needs matplotlib; get it with `pip install matplotlib`"
        ) from error
    if len(report.versions) < 2:
        return False
    figure = Figure(figsize=(13, 3.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    reward, accuracy, length = figure.subplots(1, 3)
    reward.plot(*series(report.versions, "reward"), color="#2a9d5c", linewidth=1.8)
    length.plot(*series(report.versions, "mean_tokens"), color="#3a7ca5", linewidth=1.8)
    for mode, colour in zip(modes_of(report.run), ("#264653", "#e07a3f"), strict=False):
        evaluations = evaluations_of(report.run, mode)
        numbers = [e.policy.number for e in evaluations]
        accuracy.plot(numbers, [e.accuracy for e in evaluations], "o-", color=colour, markersize=4, label=mode)
        lows, highs = [e.low for e in evaluations], [e.high for e in evaluations]
        accuracy.fill_between(numbers, lows, highs, color=colour, alpha=0.15, linewidth=0)
    accuracy.set_ylim(0, 1)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    if report.run.evaluations:
        accuracy.legend(frameon=False, loc="lower right")
    titles = ("Mean reward", "Held-out accuracy (95 % interval)", "Mean length (tokens)")
    for axes, title in zip((reward, accuracy, length), titles, strict=True):
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    figure.suptitle(report.run.id, x=0.01, ha="left", fontsize=12, fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True
