"""One sample from turn to turn: limits, budgets, tools, and token ids that are only ever appended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion, SamplingParams
from perilune.codec import unpack
from perilune.errors import InvalidInputError
from perilune.models.response_text import ResponseText
from perilune.recipe import CalculatorEnvironment, GuessEnvironment
from services.rollout.config import RolloutSettings
from services.rollout.engines.base import Generated, SampleRequest, Span
from services.rollout.environments.answers import checked, outcome_message
from services.rollout.environments.base import Observation, Outcome
from services.rollout.environments.calculator import Calculator, evaluate
from services.rollout.environments.guess import Guess
from services.rollout.rollout import Rollout
from tests.unit.rollout.tiny import EOS, WORDS, tiny_tokenizer

POLICY = PolicyVersion(number=1, digest="d")
PROMPT = np.array([1, 4, 5], np.int32)


def task(max_tokens: int = 20, budget: int = 0, unfinished: trajectory.Trajectory | None = None) -> RolloutTask:
    return RolloutTask(
        group_id="g",
        sample_indices=[0],
        sampling=SamplingParams(temperature=1, max_tokens=max_tokens, stop=["w9"]),
        budget_tokens=budget,
        unfinished=unfinished,
    )


def rollout(a_task: RolloutTask) -> Rollout:
    return Rollout(a_task, 0, PROMPT, tiny_tokenizer(), max_context=64)  # type: ignore[arg-type]


def wrote(sample: SampleRequest, tokens: list[int], ending: int) -> Generated:
    ids, logprobs = np.array(tokens, np.int32), np.full(len(tokens), -1.0, np.float32)
    return Generated(sample, (Span(POLICY, ids, logprobs, logprobs),), ending)  # type: ignore[arg-type]


def test_the_limit_counts_all_segments_and_the_budget_this_rounds() -> None:
    first = rollout(task(max_tokens=12, budget=5))
    asked = first.next_sample()
    assert (asked.max_new_tokens, asked.response_start) == (5, 3)
    first.take(wrote(asked, [10] * 5, trajectory.ENDING_LENGTH))
    assert first.ending == trajectory.ENDING_BUDGET
    saved = first.trajectory()
    assert saved.response == ""

    saved.round = 1
    second = rollout(task(max_tokens=12, budget=5, unfinished=saved))
    asked = second.next_sample()
    assert asked.tokens.tolist() == [*PROMPT, *[10] * 5]
    assert (asked.max_new_tokens, asked.response_start) == (5, 3)
    second.take(wrote(asked, [11] * 5, trajectory.ENDING_LENGTH))
    assert second.ending == trajectory.ENDING_BUDGET

    third = rollout(task(max_tokens=12, budget=5, unfinished=second.trajectory()))
    asked = third.next_sample()
    assert asked.max_new_tokens == 2  # of the limit
    third.take(wrote(asked, [12] * 2, trajectory.ENDING_LENGTH))
    done = third.trajectory()
    assert done.ending == trajectory.ENDING_LENGTH
    assert [unpack(segment.tokens).tolist() for segment in done.segments] == [[10] * 5, [11] * 5, [12] * 2]
    assert done.response == " ".join([WORDS[10]] * 5 + [WORDS[11]] * 5 + [WORDS[12]] * 2)
    assert done.round == 1


def special_tokenizer() -> PreTrainedTokenizerFast:
    """Words 40 and 41 are special tokens."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [WORDS[40], WORDS[41]]})
    return tokenizer


@pytest.mark.parametrize(
    ("keep", "tokens", "text"),
    [
        (False, [40, 10, 41, 11, EOS], "w6 w7"),
        (True, [40, 10, 41, 11, EOS], "w36 w6 w37 w7"),
        (True, [40, 10, 41], "w36 w6 w37"),  # it ended by its limit, or by a stop text
        (True, [EOS], ""),
        (True, [], ""),
    ],
)
def test_special_tokens_are_seen_where_the_recipe_says_so_and_the_end_of_a_response_never(
    keep: bool, tokens: list[int], text: str
) -> None:
    tokenizer = special_tokenizer()
    text_of = ResponseText(tokenizer, keep, {EOS})  # type: ignore[arg-type]
    sample = Rollout(task(max_tokens=20), 0, PROMPT, tokenizer, 64, text_of)  # type: ignore[arg-type]
    sample.take(wrote(sample.next_sample(), tokens, trajectory.ENDING_STOP))
    assert sample.trajectory().response == text


class Echo:
    """Says the last word of a turn once more; the third time it ends."""

    stop = ("w20",)

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.repeated: list[str] = []
        self.is_closed = False

    async def reset(self, prompt: trajectory.Prompt, turns: list[str]) -> None:
        self.repeated = list(turns)

    async def step(self, action: str):
        self.turns.append(action)
        return Observation(f"w30 {action.split(maxsplit=1)[0]}", is_final=len(self.turns) + len(self.repeated) == 3)

    async def close(self) -> None:
        self.is_closed = True


ASK = WORDS.index("w20")


async def test_an_environment_answers_and_its_tokens_are_marked() -> None:
    one, echo = rollout(task()), Echo()
    one.meet(echo, max_turns=5)
    assert one.next_sample().sampling.stop == ("w9", "w20")
    one.take(wrote(one.next_sample(), [10, ASK], trajectory.ENDING_STOP))
    assert one.ending is None
    await one.ask_environment()
    asked = one.next_sample()
    assert [WORDS[token] for token in asked.tokens[3:]] == ["w6", "w20", "w30", "w6"]
    assert asked.max_new_tokens == 16
    one.take(wrote(asked, [11, EOS], trajectory.ENDING_STOP))
    assert one.ending == trajectory.ENDING_STOP  # it ended without asking
    await one.close()
    assert echo.turns == ["w6 w20"]
    assert echo.is_closed
    done = one.trajectory()
    assert [segment.environment for segment in done.segments] == [False, True, False]
    assert not done.segments[1].HasField("policy")


async def test_another_worker_repeats_the_turns_and_says_nothing_twice() -> None:
    one = rollout(task(budget=3))
    one.meet(Echo(), max_turns=5)
    one.take(wrote(one.next_sample(), [10, ASK], trajectory.ENDING_STOP))
    await one.ask_environment()
    one.take(wrote(one.next_sample(), [11], trajectory.ENDING_LENGTH))
    assert one.ending == trajectory.ENDING_BUDGET
    two, echo = rollout(task(budget=3, unfinished=one.trajectory())), Echo()
    two.meet(echo, max_turns=5)
    two.take(wrote(two.next_sample(), [ASK], trajectory.ENDING_STOP))
    await two.ask_environment()
    assert echo.repeated == ["w6 w20"]
    assert echo.turns == ["w7 w20"]
    assert [segment.environment for segment in two.segments] == [False, True, False, False, True]


@pytest.mark.parametrize(("max_turns", "ending"), [(1, trajectory.ENDING_LENGTH), (9, trajectory.ENDING_STOP)])
async def test_turns_are_limited_and_an_environment_may_end_the_response(max_turns: int, ending: int) -> None:
    one = rollout(task())
    one.meet(Echo(), max_turns)
    for _ in range(3):
        if one.ending is None:
            one.take(wrote(one.next_sample(), [10, ASK], trajectory.ENDING_STOP))
            await one.ask_environment()
    assert one.ending == ending


async def test_what_an_environment_says_is_cut_at_the_limit() -> None:
    one = rollout(task(max_tokens=3))
    one.meet(Echo(), max_turns=5)
    one.take(wrote(one.next_sample(), [10, ASK], trajectory.ENDING_STOP))
    await one.ask_environment()
    assert (one.num_response_tokens, one.ending) == (3, trajectory.ENDING_LENGTH)


TURNS = (
    "{% for m in messages %}{{ ('w1' if m.role == 'assistant' else 'w2') + ' ' + m.content + ' <eos> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'w1 ' }}{% endif %}"
)


def game(secret: str = "9", unfinished: trajectory.Trajectory | None = None, **options: Any) -> Rollout:
    """A rollout against the game, with a template that opens and closes turns; the prompt is `w2 w8 <eos> w1`."""
    a_task = task(budget=8, unfinished=unfinished)
    a_task.prompt.CopyFrom(trajectory.Prompt(reference=secret, messages=[{"role": "user", "content": "w8"}]))
    prompt = np.array([6, 12, EOS, 5], np.int32)
    made = Rollout(a_task, 0, prompt, tiny_tokenizer(TURNS), 64, None, EOS)  # type: ignore[arg-type]
    table = GuessEnvironment(type="guess", **options)
    made.meet(Guess(RolloutSettings(), table), table.max_turns)
    return made


async def say(one: Rollout, *words: str, ending: int = trajectory.ENDING_STOP) -> None:
    """The policy writes, and the environment answers."""
    one.take(wrote(one.next_sample(), [WORDS.index(word) for word in words], ending))
    if one.ending is None:
        await one.ask_environment()


def spoken(one: Rollout) -> list[str]:
    """What each segment says; the environment's in brackets."""
    words = [" ".join(WORDS[token] for token in unpack(segment.tokens)) for segment in one.segments]
    return [f"[{said}]" if segment.environment else said for said, segment in zip(words, one.segments, strict=True)]


async def test_chat_messages_close_the_turn_and_open_the_next_and_the_outcome_ends_the_response() -> None:
    one = game(guesses=2)
    await say(one, "w4", "<eos>")  # closed: `4` is lower than 9
    assert one.ending is None
    await say(one, "w9", "<eos>")
    # `higher` and `right` are no words of this tokenizer.
    assert spoken(one) == ["w4 <eos>", "[w2 <unk> <eos> w1]", "w9 <eos>", "[w2 <unk> <eos>]"]
    done = one.trajectory()
    assert (done.ending, done.outcome.value, done.outcome.reason) == (trajectory.ENDING_STOP, 1, "found in 2 guesses")
    assert not one.wants_outcome


async def test_a_game_that_is_lost_or_not_played_to_its_end_has_an_outcome_too() -> None:
    lost = game(guesses=1)
    await say(lost, "w4", "<eos>")
    assert lost.trajectory().outcome.reason == "9 was not found in 1 guesses"
    for words, ending in ((("w4",), trajectory.ENDING_REPETITION), (("w4", "w9"), trajectory.ENDING_STOP)):
        left = game()
        await say(left, *words, ending=ending)  # the second ends by a stop text of the recipe, within a turn
        assert left.wants_outcome
        await left.ask_outcome()
        assert (left.trajectory().ending, left.trajectory().outcome.value) == (ending, 0)
        assert not left.wants_outcome


async def test_a_game_goes_on_elsewhere_and_is_judged_once() -> None:
    one = game(guesses=2)
    await say(one, "w4", "<eos>")
    await say(one, *["w9"] * 6, ending=trajectory.ENDING_LENGTH)
    assert one.ending == trajectory.ENDING_BUDGET
    assert not one.wants_outcome
    saved = one.trajectory()
    assert not saved.HasField("outcome")
    two = game(guesses=2, unfinished=saved)
    await say(two, "<eos>")
    assert two.trajectory().outcome.reason == "found in 2 guesses"


async def test_an_environment_that_waits_for_the_end_of_a_turn_needs_a_model_that_says_it() -> None:
    with pytest.raises(InvalidInputError, match="has no token for that"):
        rollout(task()).meet(Guess(RolloutSettings(), GuessEnvironment(type="guess")), 8)
    with pytest.raises(InvalidInputError, match="'nine' is no whole number"):
        await say(game(secret="nine"), "w4", "<eos>")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "answered with None (NoneType), and not with an Observation"),
        (Observation(text=3), "answered with a text that is 3 (int)"),  # type: ignore[arg-type]
        (Observation(messages="hi"), "answered with messages that are 'hi' (str), and no list of them"),  # type: ignore[arg-type]
        (Observation(text="a", messages=[{"role": "user", "content": "b"}]), "answered with text and with messages"),
        (Observation(messages=[{"role": "user"}]), "answered with a message that is no {role, content}"),
        (
            Observation(messages=[{"role": "assistant", "content": "b"}]),
            "answered with a message of the role 'assistant'",
        ),
        (Observation(messages=[{"role": "user", "content": 3}]), "answered with a message whose content is 3 (int)"),  # type: ignore[dict-item]
    ],
)
def test_an_answer_that_is_none_is_named(answer: Any, said: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        checked(answer)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("outcome", [1.0, Outcome(), Outcome(float("inf")), Outcome("1"), Outcome(1, correct=1)])  # type: ignore[arg-type]
def test_an_outcome_that_is_none_is_named(outcome: Any) -> None:
    with pytest.raises(InvalidInputError, match="gave an outcome"):
        outcome_message(outcome)
    assert not outcome_message(Outcome(0.0, error="the board is gone")).HasField("value")


async def test_the_calculator_knows_sums_and_products_and_nothing_else() -> None:
    calculator = Calculator(RolloutSettings(), CalculatorEnvironment(type="calculator"))
    for asked, said in [
        ("calc 7 * 8 =", " 56"),
        ("calc 1 = 1 calc 2 - 5 * 3 =", " -13"),
        ("calc 7 ** 8 =", " error"),
        ("calc __import__('os') =", " error"),
        ("calc", " error"),
        ("calc " + "1+" * 200 + "1 =", " error"),
    ]:
        assert (await calculator.step(asked)).text == said
    assert evaluate("-(2 + 3) * 4") == -20
