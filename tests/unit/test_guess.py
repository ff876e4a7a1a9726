"""The game's problems and traces: held-out games are apart, and who halves what is left always wins."""

from __future__ import annotations

from random import Random

from perilune.tasks import guess


def test_held_out_games_never_meet_the_others() -> None:
    train = {guess.problem(seed, index).game for seed in range(3) for index in range(300)}
    heldout = {guess.problem(seed, index, held_out=True).game for seed in range(3) for index in range(300)}
    assert not train & heldout
    assert guess.question(guess.Problem(41, 3, 9)) == "game 41 guess from 3 to 9"


def test_a_trace_is_a_game_in_words_of_the_vocabulary() -> None:
    assert guess.trace(guess.Problem(1, 3, 8), Random(0), halves=1) == "6 <eos> higher 8"
    assert guess.trace(guess.Problem(1, 3, 7), Random(0), halves=1) == "6 <eos> higher 8 <eos> lower 7"
    wins = 0
    for index in range(300):
        problem = guess.problem(0, index)
        assert guess.trace(problem, Random(index), halves=1).split()[-1] == problem.answer
        words = guess.trace(problem, Random(index), halves=0).split()
        assert {*words, *guess.question(problem).split()} <= {*guess.VOCABULARY, guess.TURN_END}
        wins += words[-1] == problem.answer
    assert 60 < wins < 180  # three guesses of seven numbers, without regard to the hints: 0.37
