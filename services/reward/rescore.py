"""Says what of an earlier score still holds, when an answer is scored again."""

from __future__ import annotations

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Component, GraderChoice, Score, ScoredAnswer


def standing_component(choice: GraderChoice, version: str, answer: ScoredAnswer) -> Component | None:
    """Returns what the same grader, in the same version and with the same options, said of the answer before; with
    the weight of the new choice. None if it must be asked again: it failed, or it has changed, or was not asked."""
    for asked, component in zip(answer.request.graders, answer.score.components, strict=False):
        same = (asked.name, dict(asked.options)) == (choice.name, dict(choice.options))
        if same and (component.grader, component.version, component.status) == (choice.name, version, SCORE_STATUS_OK):
            standing = Component()
            standing.CopyFrom(component)
            standing.weight = choice.weight if choice.HasField("weight") else 1.0
            return standing
    return None


def has_changed(before: Score, after: Score) -> bool:
    """Tests whether status or value differ."""
    return (before.status, before.HasField("value"), before.value) != (
        after.status,
        after.HasField("value"),
        after.value,
    )
