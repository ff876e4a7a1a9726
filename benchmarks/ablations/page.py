"""docs/ablations.md and its pictures, from stored runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablations.claims import Claim, Comparison, Measure
from benchmarks.ablations.effects import Effect, Verdict, effect_of, interval_of, verdict_of
from benchmarks.ablations.notes import NOTES
from benchmarks.ablations.store import Store, run_id

Run = dict[str, Any]
PICTURES = "pictures/ablations"
UNITS: dict[Measure, str] = {
    "area": "mean held-out accuracy after version 0",
    "final": "held-out accuracy at the end",
    "gain": "accuracy gained",
    "tokens": "tokens of a response at the end",
    "growth": "tokens gained",
}


@dataclass(frozen=True)
class Found:
    """A claim with its runs: by variant and seed, those that ended well, and labels with reasons of the others."""

    claim: Claim
    runs: Mapping[str, Mapping[int, Run]]
    failed: Sequence[str]

    def values(self, variant: str, measure: Measure) -> dict[int, float]:
        """A measure of each seed's run."""
        return {seed: measured(run, measure) for seed, run in self.runs[variant].items()}

    def effect(self, comparison: Comparison) -> Effect | None:
        """The effect over the seeds that both variants have; None where there are none."""
        ours = self.values(comparison.variant, comparison.measure)
        theirs = dict.fromkeys(ours, 0.0)  # a gain is against version 0 already
        if comparison.against in self.runs:
            theirs = self.values(comparison.against, comparison.measure)
        differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        return effect_of(differences) if differences else None

    def verdict(self, comparison: Comparison) -> Verdict:
        return verdict_of(self.effect(comparison), comparison.expected, comparison.measure)


def measured(run: Run, measure: Measure) -> float:
    """One number of a run; `claims.Measure` says which."""
    first, *rest = run["evaluations"]
    last = rest[-1] if rest else first
    return {
        "area": float(np.mean([each["accuracy"] for each in rest or [first]])),
        "final": last["accuracy"],
        "gain": last["accuracy"] - first["accuracy"],
        "tokens": last["mean_tokens"],
        "growth": last["mean_tokens"] - first["mean_tokens"],
    }[measure]


def found_of(claim: Claim, store: Store, data: Path, overrides: Sequence[str] = ()) -> Found:
    """The claim's runs that are there."""
    runs: dict[str, dict[int, Run]] = {}
    failed = []
    for name, variant in claim.variants.items():
        runs[name] = {}
        for seed in claim.seeds:
            run = store.load(run_id(variant.recipe(seed, data, overrides), variant.bits))
            if run is not None and "failed" in run:
                failed.append(f"{name}, seed {seed}: {run['failed']}")
            elif run is not None:
                runs[name][seed] = run
    return Found(claim, runs, failed)


def write_page(claims: Sequence[Claim], store: Store, data: Path, out: Path, overrides: Sequence[str] = ()) -> None:
    """Writes the page and a picture of each claim that has runs."""
    found = [found_of(claim, store, data, overrides) for claim in claims]
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    for each in found:
        if any(each.runs.values()):
            draw(each, out / PICTURES / f"{each.claim.name}.svg")
    sections = [line for each in found for line in section(each)]
    (out / "ablations.md").write_text("\n".join([HEAD, *overview(found), *sections]))


HEAD = """\
# Ablations

What the paper and its neighbours claim, in kind: on models of about a hundred thousand parameters, with paired seeds.
This page is written by `python -m benchmarks.ablations` from the runs in `benchmarks/ablations/runs`, and no figure
of it by hand. `python -m benchmarks.ablations NAME` makes the runs of one claim that are missing and writes the page
again; what is there is never run twice.

Tasks, sizes, measures and comparisons stand in `benchmarks/ablations/claims.py` and were written before these runs
were made. Tried before was the base run alone, on another seed. A variant differs from the base in what its name
says; seed for seed it has the same version 0, prompts, and random streams of sampling. Each run is one process made
of the services' own parts (`loop.py`): the master's sampler, the torch engine, a grader, the trainer's learner.

Tables have the median over seeds and its 95 % interval by a percentile bootstrap, which of few seeds is at most their
range. An effect is the median of the differences seed by seed, with its interval, and *p* is that of the exact paired
sign-flip test (`scipy.stats.permutation_test`), which with five seeds cannot be below 0.06 and with three below 0.25:
read the interval. *Reproduced in kind*: the interval is clear of zero on the side that is claimed and the median is
more than 0.02 (of tokens: 1); of a claim that something makes no difference, the interval lies within twice that.
*Opposite*: clear on the other side, or clear where none was claimed. *Not at this scale*: neither. *Not run yet*: of
fewer than three seeds, whatever they say.
"""


def overview(found: Sequence[Found]) -> list[str]:
    """One row a comparison."""
    rows = ["| claim | source | compared | effect | |", "| --- | --- | --- | --- | --- |"]
    for each in found:
        for number, comparison in enumerate(each.claim.comparisons):
            claimed = (f"[{each.claim.says}](#{each.claim.name})", each.claim.source) if number == 0 else ("", "")
            compared = f"{comparison.variant} against {comparison.against}: {UNITS[comparison.measure]}"
            effect = effect_text(each.effect(comparison), comparison.measure)
            rows.append(f"| {claimed[0]} | {claimed[1]} | {compared} | {effect} | {each.verdict(comparison)} |")
    return [*rows, ""]


def section(found: Found) -> list[str]:
    """A claim's part of the page."""
    claim, num_runs = found.claim, sum(map(len, found.runs.values()))
    lines = [
        f"## {claim.name}",
        "",
        f"{claim.says} ({claim.source}).",
        "",
        claim.task + (f" {claim.limits}" if claim.limits else ""),
        "",
    ]
    if not num_runs:
        return [*lines, "Not run yet.", ""]
    lines += [
        f"![held-out accuracy]({PICTURES}/{claim.name}.svg)",
        "",
        *variants_table(found),
        "",
        *effects_table(found),
        "",
    ]
    lines += [line for reason in found.failed for line in (f"- failed: {reason}",)] + ([""] if found.failed else [])
    return [*lines, *([NOTES[claim.name], ""] if claim.name in NOTES else [])]


def variants_table(found: Found) -> list[str]:
    columns: tuple[Measure, ...] = ("area", "final", "tokens")
    rows = [
        f"| variant | seeds | {' | '.join(UNITS[each] for each in columns)} | KL(μ ‖ π), nats a token | CPU s a run |",
        "| --- " * (len(columns) + 4) + "|",
    ]
    for name, runs in found.runs.items():
        if runs:
            cells = [summary_text(list(found.values(name, each).values()), each) for each in columns]
            kl = np.median([np.mean([i.get("ratio_kl", np.nan) for i in run["iterations"]]) for run in runs.values()])
            seconds = np.median([run["cpu_seconds"] for run in runs.values()])
            rows.append(f"| {name} | {len(runs)} | {' | '.join(cells)} | {kl:.2g} | {seconds:.0f} |")
    return rows


def effects_table(found: Found) -> list[str]:
    rows = ["| compared | effect | p | claimed | |", "| --- | --- | --- | --- | --- |"]
    for each in found.claim.comparisons:
        effect = found.effect(each)
        p = f"{effect.p_value:.2g}" if effect and effect.num_seeds > 1 else ""
        compared = f"{each.variant} against {each.against}: {UNITS[each.measure]}"
        said = effect_text(effect, each.measure)
        rows.append(f"| {compared} | {said} | {p} | {each.expected} | {found.verdict(each)} |")
    return rows


def effect_text(effect: Effect | None, measure: Measure) -> str:
    if effect is None:
        return ""
    digits = 1 if measure in ("tokens", "growth") else 3
    return (
        f"{effect.median:+.{digits}f} [{effect.low:+.{digits}f}, {effect.high:+.{digits}f}], {effect.num_seeds} seeds"
    )


def summary_text(values: Sequence[float], measure: Measure) -> str:
    digits = 1 if measure in ("tokens", "growth") else 3
    low, high = interval_of(values)
    return f"{np.median(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def draw(found: Found, file: Path) -> None:
    """The claim's picture: held-out accuracy by version, the median over seeds with their range, and lengths below."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "perilune"  # the same runs give the same file
    import matplotlib.pyplot as plt

    figure, (accuracy, length) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for number, (name, runs) in enumerate(found.runs.items()):
        for axes, key in ((accuracy, "accuracy"), (length, "mean_tokens")):
            if runs:
                _curve(axes, name, list(runs.values()), key, number)
    accuracy.set(xlabel="version", ylabel="held-out accuracy")
    length.set(xlabel="version", ylabel="tokens of a response")
    accuracy.legend(fontsize=7)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _curve(axes: Any, name: str, runs: Sequence[Run], key: str, number: int) -> None:
    versions = [each["version"] for each in runs[0]["evaluations"]]
    values = np.array([[each[key] for each in run["evaluations"]] for run in runs])
    colour, style = f"C{number % 10}", "-" if number < 10 else "--"
    axes.plot(versions, np.median(values, axis=0), color=colour, linestyle=style, label=name)
    if len(values) > 1:
        axes.fill_between(versions, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
