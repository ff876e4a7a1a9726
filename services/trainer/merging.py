"""`python -m services.trainer.merging MODEL MODEL … --out DIR`: one model out of several of the same shape."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from perilune.errors import InvalidInputError, PeriluneError
from perilune.models.merging import METHODS, MergeSettings, config_difference, first_difference, merged
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import load_policy
from services.trainer.sft.outputs import save_model


def main() -> None:
    """Reads the command line, merges, and writes the model."""
    parser = argparse.ArgumentParser(description="Merge models.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--method", choices=sorted(METHODS), default="average")
    parser.add_argument("--weight", action="append", type=float, default=[])
    parser.add_argument("--t", type=float, default=MergeSettings.t)
    parser.add_argument("--base")
    parser.add_argument("--density", type=float, default=MergeSettings.density)
    given = parser.parse_args()
    settings = MergeSettings(tuple(given.weight), given.t, given.density)
    try:
        merge(given.models, given.out, given.method, settings, given.base)
    except PeriluneError as error:
        sys.exit(f"perilune: {error}")
    print(f"wrote {given.out}")


def merge(models: list[str], out: Path, method: str, settings: MergeSettings, base: str | None = None) -> None:
    """Writes the merged model, with the first one's tokenizer and template.

    Raises:
        InvalidInputError: the settings do not fit the method, or the models differ in shape or tokenizer.
        NotFoundError: there is no such model.
        StateError: it cannot be written.
    """
    check_merge(models, out, method, settings, base)
    policies = [load_policy(path) for path in models]
    origin = load_policy(base) if base else None
    for path, policy in [*zip(models, policies, strict=True), *([(str(base), origin)] if origin else [])]:
        _check_alike(models[0], policies[0], path, policy)
    states = [policy.model.state_dict() for policy in policies]
    state = merged(method, states, settings, origin.model.state_dict() if origin else None)
    policies[0].model.load_state_dict(state)
    save_model(policies[0], out)


def check_merge(models: list[str], out: Path, method: str, settings: MergeSettings, base: str | None) -> None:
    """InvalidInputError if what is asked for cannot be, whatever the models hold."""
    weights = settings.weights
    for wrong, text in (
        (out.exists(), f"{out} exists already; name a new folder"),
        (len(models) < 2, "name two models or more"),
        (method == "slerp" and len(models) != 2, f"slerp lies between two models, and {len(models)} are named"),
        (method == "ties" and base is None, "ties needs --base, the model that the others were trained from"),
        (method != "ties" and base is not None, f"--base is for ties, and the method is {method}"),
        (bool(weights) and method in ("average", "slerp"), f"{method} takes no weights; write --method weighted"),
        (method == "weighted" and not weights, "weighted needs a --weight for each model"),
        (bool(weights) and len(weights) != len(models), f"{len(weights)} weights for {len(models)} models"),
        (not all(map(math.isfinite, weights)), "weights are finite numbers"),
        (bool(weights) and (min(weights) < 0 or sum(weights) <= 0), "weights are not negative, and not all 0"),
        (not 0 <= settings.t <= 1, f"t = {settings.t} does not lie between 0 and 1"),
        (not 0 < settings.density <= 1, f"density = {settings.density} does not lie between 0 and 1"),
    ):
        if wrong:
            raise InvalidInputError(text)


def _check_alike(first_path: str, first: Policy, path: str, policy: Policy) -> None:
    """InvalidInputError: a model has another shape or tokenizer than the first."""
    difference = first_difference(first.model.state_dict(), policy.model.state_dict())
    if difference := difference or config_difference(first.model.config.to_dict(), policy.model.config.to_dict()):
        raise InvalidInputError(f"{path} cannot be merged with {first_path}: {difference}")
    if policy.tokenizer.get_vocab() != first.tokenizer.get_vocab():
        theirs, ours = policy.tokenizer.get_vocab(), first.tokenizer.get_vocab()
        token = next(token for token in theirs | ours if theirs.get(token) != ours.get(token))
        raise InvalidInputError(
            f"{path} cannot be merged with {first_path}: its tokenizer is another, they differ in the token {token!r}"
        )


if __name__ == "__main__":
    main()
