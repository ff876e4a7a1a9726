"""Says which of k1.5's four behaviours (§2.2) a reasoning path shows: by the words that people use for them, or by a
model.

The rules look for phrases, in English, and not for quality: a path that says "wait" shows reflection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

BEHAVIOURS = ("planning", "evaluation", "reflection", "exploration")
PLANNED_SHARE = 0.4  # of a path, in which a plan is made: what is planned later is a step

_RULES: Mapping[str, tuple[str, ...]] = {
    "planning": (
        r"(?:my|the|a) plan|plan(?: is)?:|strategy|approach is|(?:i|we)(?: will|'ll) first|first,? (?:i|we|let)\b",
        r"let(?:'s| us| me) (?:first|start|begin|break|outline|plan)|steps? (?:1|one)\b|(?:following )?steps are",
        r"break (?:this|it|the problem) (?:down|into)",
        r"to (?:solve|find|answer) (?:this|it|the)[^.\n]{0,60}\b(?:need|have|can|will|must)",
    ),
    "evaluation": (
        r"(?:let(?:'s| us| me)|we can|i can|to|and|i'll|i will) (?:check|verify|confirm|test)\b",
        r"check:|double[- ]?check|checking|verification|verifying",
        r"plug(?:ging)?[^.\n]{0,20} back|substitut(?:e|ing)[^.\n]{0,30} back",
        r"(?:this|that|which|it) (?:is (?:right|correct|consistent)|matches|agrees|holds|checks out)",
    ),
    "reflection": (
        r"wait\b(?! for)|hmm|hold on|mistake|(?:i|we) (?:was|were|had)[^.\n]{0,20}\b(?:error|wrong)|actually,",
        r"(?:this|that|it|which) (?:is|was|cannot be|can't be|seems|looks) (?:not right|wrong|incorrect|right\?)",
        r"reconsider|rethink|go back|start over|on second thought|looking back",
        r"let me re-?(?:do|read|examine|check|calculate)|correct(?:ing)? (?:this|that|it|myself)",
    ),
    "exploration": (
        r"alternatively|what if|suppose instead|instead,? (?:i|we|try)|one could also|let(?:'s| us| me) try",
        r"(?:an)?other (?:way|approach|method|idea|option)s?|different (?:way|approach|method)s?",
        r"second (?:way|approach|method)|(?:way|approach|method|option|case) (?:2|two|b)\b",
        r"compare (?:the|both|these) (?:two|ways|methods|approaches)",
    ),
}
RULES = {name: re.compile(rf"\b(?:{'|'.join(rules)})", re.IGNORECASE) for name, rules in _RULES.items()}

LABEL_PROMPT = """\
Below are a question and a reasoning path that answers it. Which of these behaviours does the path show?

planning     it lays out steps before it carries them out
evaluation   it checks an intermediate or final result
reflection   it notices that something is wrong or doubtful and reconsiders it
exploration  it considers more than one way to solve the problem

Answer with JSON alone: {"behaviours": [...]}, with the names of those that it shows, or an empty list.

# Question
{question}

# Path
{path}
"""


def by_rules(path: str) -> tuple[str, ...]:
    """The behaviours that a path shows by its words.

    >>> by_rules("My plan: add, then halve. 4 + 6 = 10. Let me check: 10 - 6 = 4. Half of it is 5.")
    ('planning', 'evaluation')
    >>> by_rules("5")
    ()
    """
    early = path[: max(200, int(PLANNED_SHARE * len(path)))]
    return tuple(name for name, rule in RULES.items() if rule.search(early if name == "planning" else path))


class Labels(BaseModel):
    """The answer of a model that names behaviours."""

    model_config = ConfigDict(extra="forbid", strict=True)

    behaviours: list[str]


def labels_in(reply: str) -> tuple[str, ...] | None:
    """The behaviours that a model's reply names; None where it is not JSON of the form that was asked for.

    >>> labels_in('```json\\n{"behaviours": ["reflection", "planning"]}\\n```')
    ('planning', 'reflection')
    >>> labels_in('{"behaviours": ["joy"]}')
    """
    said = reply.rpartition("</think>")[2]
    found = re.search(r"\{.*\}", said, re.DOTALL)
    try:
        named = Labels.model_validate(json.loads(found[0] if found else "")).behaviours
    except (ValueError, ValidationError, RecursionError):  # a model may write anything
        return None
    return None if set(named) - set(BEHAVIOURS) else tuple(name for name in BEHAVIOURS if name in named)
