from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from perilune.errors import InvalidInputError, StateError
from perilune.recipe import (
    CurriculumSampler,
    MeasuredSampler,
    MixtureSampler,
    PrioritizedSampler,
    SamplerBase,
    UniformSampler,
)
from services.master.prompts import PromptSet
from services.master.prompts.prompt import ListedPrompts, make_prompt
from services.master.samplers import SAMPLERS, open_sampler
from services.master.samplers.mixture import counts_of
from services.master.samplers.prioritized import weighted
from services.master.samplers.sampler import Draw, draw, needed
from services.master.samplers.statistics import QUERIES, Statistic, statistics_of
from services.master.samplers.uniform import epochs
from services.master.store import Store

UNIFORM = UniformSampler(type="uniform")
PRIORITIZED = PrioritizedSampler(type="prioritized")
CURRICULUM = CurriculumSampler(type="curriculum", warmup_iterations=2)
MEASURED = MeasuredSampler(type="measured", warmup_iterations=2)
MIXTURE = MixtureSampler(type="mixture", label="half", weights={"low": 1, "high": 2})
KINDS = [UNIFORM, PRIORITIZED, CURRICULUM, MEASURED, MIXTURE]


def numbered(num_prompts: int) -> ListedPrompts:
    """Prompts that grow harder with their index, from 0 up to below 1."""
    halves = ["low" if 2 * n < num_prompts else "high" for n in range(num_prompts)]
    train = [
        make_prompt(f"{n}", "1", labels={"difficulty": str(n / num_prompts), "half": halves[n]})
        for n in range(num_prompts)
    ]
    return ListedPrompts(train, [])


def drawn_of(
    table: SamplerBase,
    number: int,
    size: int,
    num_prompts: int,
    seed: int = 0,
    rates: Mapping[int, float] | None = None,
    dead: Mapping[int, int] | None = None,
) -> list[int]:
    sampler = open_sampler(table, numbered(num_prompts))
    known = {Statistic.SUCCESS_RATES: rates or {}, Statistic.DEAD_GROUPS: dead or {}}
    return draw(sampler, number, size, seed, {key: known[key] for key in needed(sampler)})


GOLDEN = {  # seed 11, 24 prompts, six a draw: four draws, and four with prompts given up; as stored runs drew them
    "uniform": (
        [[17, 4, 0, 2, 19, 14], [1, 16, 20, 23, 22, 12], [13, 15, 9, 5, 3, 6], [10, 11, 21, 18, 8, 7]],
        [[17, 4, 0, 2, 19, 14], [15, 16, 19, 23, 22, 12], [13, 15, 9, 5, 3, 6], [10, 11, 21, 18, 8, 4]],
    ),
    "prioritized": (
        [[3, 0, 12, 13, 16, 19], [21, 11, 22, 19, 3, 10], [3, 2, 5, 13, 23, 7], [3, 15, 11, 9, 23, 5]],
        [[0, 15, 17, 18, 22, 6], [13, 5, 11, 22, 19, 12], [3, 6, 15, 9, 21, 23], [17, 13, 11, 15, 6, 5]],
    ),
    "curriculum": (
        [[17, 4, 0, 2, 19, 14], [1, 16, 20, 23, 22, 12], [22, 23, 14, 19, 12, 13], [18, 20, 17, 21, 16, 15]],
        [[17, 4, 0, 2, 19, 14], [13, 16, 9, 23, 22, 12], [22, 23, 14, 19, 12, 13], [18, 12, 17, 21, 16, 15]],
    ),
}


@pytest.mark.parametrize("table", [UNIFORM, PRIORITIZED, CURRICULUM], ids=lambda table: table.type)
def test_draws_at_a_seed_stay_what_they_are(table: SamplerBase) -> None:
    rates = {index: (index % 5) / 4 for index in range(0, 24, 2)}
    alive, given_up = GOLDEN[table.type]
    assert [drawn_of(table, n, 6, 24, 11, rates) for n in range(4)] == alive
    assert [drawn_of(table, n, 6, 24, 11, rates, {1: 2, 7: 3, 10: 1, 20: 2}) for n in range(4)] == given_up


def test_uniform_draws_every_prompt_once_an_epoch() -> None:
    first = epochs(range(10), 0, 7, seed=1) + epochs(range(10), 7, 3, seed=1)
    assert sorted(first) == list(range(10))
    assert sorted(epochs(range(10), 10, 10, seed=1)) == list(range(10))
    assert epochs(range(10), 10, 10, seed=1) != first


def test_uniform_draws_cross_the_end_of_an_epoch() -> None:
    assert epochs(range(10), 8, 4, 3) == epochs(range(10), 8, 2, 3) + epochs(range(10), 10, 2, 3)


def test_a_resumed_run_draws_what_it_would_have_drawn() -> None:
    once = drawn_of(PRIORITIZED, 5, 4, 20, 2, {3: 0.5})
    assert once == drawn_of(PRIORITIZED, 5, 4, 20, 2, {3: 0.5})
    assert once != drawn_of(PRIORITIZED, 6, 4, 20, 2, {3: 0.5})


def test_prioritized_draws_in_proportion_to_the_failure_rate() -> None:
    """One draw of weights 3:1 takes the first three times in four; 4,000 draws have a deviation of 27."""
    counts = Counter(weighted([0.75, 0.25], 1, Random(i))[0] for i in range(4000))
    assert 3000 - 110 < counts[0] < 3000 + 110


def test_prioritized_takes_solved_prompts_only_when_no_other_is_left() -> None:
    drawn = weighted([0.0, 0.5, 0.0, 0.1], 3, Random(0))
    assert set(drawn[:2]) == {1, 3}
    assert len(set(drawn)) == 3


def test_prioritized_fills_an_iteration_larger_than_the_set() -> None:
    assert Counter(drawn_of(PRIORITIZED, 0, 4, 2)) == {0: 2, 1: 2}


@pytest.mark.parametrize(("iteration", "expected"), [(1, set(range(10))), (2, {7, 8, 9})])
def test_a_curriculum_narrows_to_hard_prompts_after_its_warmup(iteration: int, expected: set[int]) -> None:
    table = CURRICULUM.model_copy(update={"min_difficulty": 0.7})
    assert set(drawn_of(table, iteration, 30, 10)) == expected


HARD = CurriculumSampler(type="curriculum", difficulty_label="level", min_difficulty=0.7, warmup_iterations=9)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["0.2", "0.6"], "sampler.min_difficulty: no training prompt is as hard as 0.7; the hardest has level 0.6"),
        (["0.9", "hard"], r"training prompt 1 \('question 1'\) has 'hard' under 'level'"),
        (["nan"], "training prompt 0 .* has 'nan' under 'level'"),
        (["inf"], "training prompt 0 .* has 'inf' under 'level'"),
        ([None], "training prompt 0 .* has '' under 'level'"),
    ],
)
def test_a_curriculum_that_cannot_begin_is_refused_before_the_run(levels: list[str | None], expected: str) -> None:
    train = [
        make_prompt(f"question {number}", "1", labels={} if level is None else {"level": level})
        for number, level in enumerate(levels)
    ]
    with pytest.raises(InvalidInputError, match=expected):
        open_sampler(HARD, ListedPrompts(train, []))


def test_a_curriculum_with_one_hard_prompt_can_begin() -> None:
    train = [make_prompt(level, "1", labels={"level": level}) for level in ("0.1", "0.7")]
    assert open_sampler(HARD, ListedPrompts(train, [])).candidates(9) == [1]


def test_a_measured_curriculum_draws_what_is_not_solved_after_its_warmup() -> None:
    rates = {**dict.fromkeys(range(6), 0.9), 6: 0.5, 7: 0.2}  # 8 and 9 were not tried
    assert drawn_of(MEASURED, 1, 4, 10, rates=rates) == drawn_of(UNIFORM, 1, 4, 10)
    assert set(drawn_of(MEASURED, 2, 4, 10, rates=rates)) == {6, 7, 8, 9}
    assert len({tuple(drawn_of(MEASURED, number, 2, 10, rates=rates)) for number in range(2, 9)}) > 1
    solved = {**rates, 3: 0.6, 4: 0.7, 6: 0.8}
    assert drawn_of(MEASURED, 2, 5, 10, rates=solved) == [7, 8, 9, 3, 4]  # the hardest of the others fill the draw
    assert set(drawn_of(MEASURED, 2, 4, 10, rates=rates, dead={7: 2})) == {6, 8, 9, 3} - {3} | {0}


def test_a_mixture_keeps_its_shares_and_each_part_its_epochs() -> None:
    draws = [drawn_of(MIXTURE, number, 6, 12) for number in range(6)]
    assert [sum(index < 6 for index in drawn) for drawn in draws] == [2] * 6
    for part, per_draw in ((range(6), 2), (range(6, 12), 4)):
        drawn = [index for each in draws for index in each if index in part]
        assert sorted(drawn[: len(part)]) == list(part)
        assert len(drawn) == 6 * per_draw
        assert set(Counter(drawn).values()) == {per_draw}


def test_a_part_of_less_than_one_prompt_a_draw_has_its_turn() -> None:
    counts = [counts_of([1, 9, 30], 4, number) for number in range(100)]
    assert all(sum(each) == 4 for each in counts)
    assert all(min(each) >= 0 for each in counts)
    assert [sum(each[place] for each in counts) for place in range(3)] == pytest.approx([10, 90, 300], abs=2)


def test_a_mixture_of_what_is_not_there_is_refused() -> None:
    table = MixtureSampler(type="mixture", label="half", weights={"low": 1, "middle": 1})
    with pytest.raises(
        InvalidInputError, match="no training prompt has 'middle' under 'half'; there are 'high', 'low'"
    ):
        open_sampler(table, numbered(4))


def test_prompts_that_are_given_up_are_replaced_and_the_others_keep_their_places() -> None:
    whole = [drawn_of(UNIFORM, number, 4, 12) for number in range(3)]
    drawn = [drawn_of(UNIFORM, number, 4, 12, dead={3: 2, 7: 5, 8: 1}) for number in range(3)]
    for before, after in zip(whole, drawn, strict=True):
        assert [index for index in before if index not in (3, 7)] == [
            index for place, index in enumerate(after) if before[place] not in (3, 7)
        ]
        assert len(set(after)) == 4
        assert not {3, 7} & set(after)
    assert any(8 in part for part in drawn)  # once may have been a fault of others


def test_prioritized_takes_what_was_given_up_last() -> None:
    rates = dict.fromkeys(range(10), 0.9)
    for number in range(20):
        drawn = drawn_of(PRIORITIZED, number, 4, 16, rates=rates, dead=dict.fromkeys(range(10, 16), 1))
        assert set(drawn) <= set(range(10))
    assert set(drawn_of(PRIORITIZED, 0, 4, 3, dead={0: 2, 1: 1})) == {1, 2}


@pytest.mark.parametrize("table", KINDS, ids=lambda table: table.type)
def test_a_set_of_which_nothing_can_be_sampled_ends_the_run(table: SamplerBase) -> None:
    with pytest.raises(StateError, match="none of the 2 prompts"):
        drawn_of(table, 0, 4, 2, dead={0: 2, 1: 2})


# --- A further kind is a table, a file and a row ------------------------------------------------------------------


class WorstFirst(SamplerBase):
    type: Literal["worst-first"]
    unknown_rate: float = 0.0  # of prompts that were never tried


@dataclass(frozen=True)
class WorstFirstDraws:
    table: WorstFirst
    prompts: PromptSet
    needs = (Statistic.SUCCESS_RATES,)

    def candidates(self, number: int) -> Sequence[int]:
        return range(self.prompts.num_train)

    def choose(self, draw: Draw) -> list[int]:
        rates = draw.statistics[Statistic.SUCCESS_RATES]
        return sorted(draw.candidates, key=lambda index: rates.get(index, self.table.unknown_rate))[: draw.size]


def test_a_further_kind_is_a_row_and_prompts_are_set_aside_for_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, WorstFirst, WorstFirstDraws)
    table = WorstFirst(type="worst-first", unknown_rate=1.0)
    assert drawn_of(table, 0, 5, 2, rates={1: 0.5}) == [1, 0, 1, 0, 1]
    rates = {4: 0.0, 2: 0.25, 3: 0.5, 0: 0.75}
    assert drawn_of(table, 0, 3, 6, rates=rates) == [4, 2, 3]
    drawn = drawn_of(table, 0, 3, 6, rates=rates, dead={2: 2})
    assert (drawn[0], drawn[2]) == (4, 3)
    assert drawn[1] in (0, 1, 5)


async def test_the_database_is_asked_only_for_what_a_sampler_needs(tmp_path: Path) -> None:
    sampler = open_sampler(UNIFORM, numbered(3))
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path / 'db'}") as store:
        known = await statistics_of(store, "run", needed(sampler))
    assert known == {Statistic.DEAD_GROUPS: {}}
    assert needed(open_sampler(PRIORITIZED, numbered(3))) == set(QUERIES)
