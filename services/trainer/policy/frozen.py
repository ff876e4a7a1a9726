"""The frozen policy that an objective may compare with: version 0 of the run, or a model of the same tokenizer."""

from __future__ import annotations

from pathlib import Path

from perilune.errors import InvalidInputError, NotFoundError
from perilune.recipe import Recipe
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import load_policy


def frozen_policy(recipe: Recipe, policy: Policy, version_0: Path | None) -> Policy | None:
    """The recipe's frozen policy, in float32; None where there is no need of a model beside the policy.

    Args:
        policy: that is trained.
        version_0: the checkpoint of version 0, which a resumed run reads again; None where the policy is version 0.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: a model that reads other tokens than the policy, or fewer at a time.
        StateError, NotFoundError: the checkpoint is gone or damaged.
    """
    objective = recipe.trainer.objective
    if "frozen" not in objective.needs:
        return None
    if objective.frozen_path is not None:
        return _named(objective.frozen_path, policy)
    if version_0 is None or recipe.trainer.adapter:  # the learner takes it from the policy
        return None
    return load_policy(str(version_0))


def _named(path: str, policy: Policy) -> Policy:
    try:
        frozen = load_policy(path)
    except (NotFoundError, InvalidInputError) as error:
        raise type(error)(f"trainer.objective.frozen_model: {error}") from error
    frozen.model.to(policy.model.device)  # type: ignore[arg-type]  # transformers wraps `to`
    for wrong, text in (
        (frozen.tokenizer.get_vocab() != policy.tokenizer.get_vocab(), "has another tokenizer than the policy"),
        (_vocabulary(frozen) < _vocabulary(policy), "has a smaller vocabulary than the policy"),
        (_processor(frozen) != _processor(policy), "reads images otherwise than the policy"),
        (_context(frozen) < _context(policy), "reads fewer tokens at a time than the policy"),
    ):
        if wrong:
            raise InvalidInputError(
                f"trainer.objective.frozen_model: {path!r} {text}, so it cannot say how likely the policy's "
                "responses are; name a model of the policy's family, or none for version 0 of the run"
            )
    return frozen


def _vocabulary(policy: Policy) -> int:
    return int(policy.model.config.get_text_config().vocab_size)


def _processor(policy: Policy) -> str:
    return policy.vision.version if policy.vision else ""


def _context(policy: Policy) -> float:
    return float(getattr(policy.model.config.get_text_config(), "max_position_embeddings", "inf"))
