"""What a path shows, and which paths are kept."""

from __future__ import annotations

from collections import Counter

import pytest

from perilune.warmup_data.balance import Candidate, balanced
from perilune.warmup_data.behaviours import by_rules, labels_in
from perilune.warmup_data.plan import BalanceTable


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("Plan: add first. 2 + 3 = 5.", {"planning"}),
        ("2 + 3 = 5. Let me check: 5 - 3 = 2.", {"evaluation"}),
        ("2 + 3 = 6. Wait, I made a mistake. It is 5.", {"reflection"}),
        ("2 + 3 = 5. Alternatively, count on from 3.", {"exploration"}),
        ("First, I add. Hmm, that is wrong. Another way is to count. I double-check.", {
            "planning", "evaluation", "reflection", "exploration"}),
        ("2 + 3 = 5", set()),
        ("The waiter plants a tree, and another one.", set()),
    ],
)  # fmt: skip
def test_behaviours_by_their_words(path: str, shown: set[str]) -> None:
    assert set(by_rules(path)) == shown


def test_a_plan_is_made_before_it_is_carried_out() -> None:
    assert by_rules("2 + 3 = 5. " * 60 + "The plan was good.") == ()


@pytest.mark.parametrize(
    "reply", ["", "planning", '{"behaviours": "planning"}', '{"behaviours": [1]}', "[]", "{" * 9999]
)
def test_a_reply_of_another_form_is_no_label(reply: str) -> None:
    assert labels_in(reply) is None
    assert labels_in(f'<think>{reply}</think> {{"behaviours": []}}') == ()


def test_no_behaviour_drowns_the_others_and_no_question_the_rest() -> None:
    paths = [Candidate(n, n, f"a{n}", ("planning",)) for n in range(40)]
    paths += [Candidate(40 + n, n, f"b{n}", ("evaluation",)) for n in range(5)]
    paths += [Candidate(50 + n, 0, f"c{n}", ("reflection",)) for n in range(9)]
    paths += [Candidate(60, 7, "d", ())]
    kept = balanced(paths, BalanceTable(max_ratio=2, max_per_question=3), seed=1)
    shown = Counter(name for each in kept for name in each.behaviours)
    assert shown["reflection"] <= 3
    assert shown["planning"] <= 2 * min(shown.values())
    assert max(Counter(each.question for each in kept).values()) <= 3
    assert all(each.behaviours for each in kept)
    assert balanced(paths, BalanceTable(max_ratio=2, max_per_question=3), seed=1) == kept
    assert len(balanced(paths, BalanceTable(num_paths=4), seed=1)) == 4
    assert len(balanced(paths, BalanceTable(min_behaviours=2), seed=1)) == 0
    assert paths[-1] in balanced(paths, BalanceTable(min_behaviours=0), seed=1)
