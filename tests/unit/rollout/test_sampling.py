"""The sampler against probabilities worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from services.rollout.engines.sampling import draw, stream_of, uniforms

# softmax of these logits is 0.1, 0.2, 0.3, 0.4
LOGITS = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4]))


def draw_at(uniform: float, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> tuple[int, float, float]:
    token, drawn, full = draw(
        LOGITS[None],
        torch.tensor([temperature]),
        torch.tensor([top_p]),
        torch.tensor([top_k]),
        torch.tensor([uniform], dtype=torch.float64),
    )
    return int(token), math.exp(float(drawn)), math.exp(float(full))


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.05, 0), (0.15, 1), (0.35, 2), (0.65, 3), (1 - 2**-53, 3)])
def test_the_uniform_number_picks_the_token_that_covers_it(uniform: float, token: int) -> None:
    drawn_token, drawn, full = draw_at(uniform)
    assert drawn_token == token
    assert drawn == pytest.approx([0.1, 0.2, 0.3, 0.4][token], rel=1e-6)
    assert full == pytest.approx(drawn, rel=1e-6)


def test_temperature_sharpens_what_is_sampled_and_not_the_full_distribution() -> None:
    # At temperature 0.5 probabilities go as their squares: 1, 4, 9, 16 of 30.
    token, drawn, full = draw_at(0.4, temperature=0.5)
    assert token == 2
    assert drawn == pytest.approx(9 / 30, rel=1e-5)
    assert full == pytest.approx(0.3, rel=1e-5)


def test_top_k_leaves_the_k_most_likely() -> None:
    token, drawn, full = draw_at(0.0, top_k=2)
    assert token == 2  # tokens 0 and 1 are out
    assert drawn == pytest.approx(3 / 7, rel=1e-5)
    assert full == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize(("top_p", "first", "share"), [(0.35, 3, 1.0), (0.5, 2, 3 / 7), (0.75, 1, 2 / 9)])
def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p(top_p: float, first: int, share: float) -> None:
    token, drawn, _ = draw_at(0.0, top_p=top_p)
    assert token == first
    assert drawn == pytest.approx(share, rel=1e-5)


def test_the_nucleus_is_that_of_what_top_k_left() -> None:
    # Of 0.4 and 0.3 the larger is 4/7 = 0.57 of what is left, which reaches 0.5.
    assert draw_at(0.0, top_p=0.5, top_k=2)[:2] == (3, pytest.approx(1.0))


def test_greedy_takes_the_most_likely_with_certainty() -> None:
    token, drawn, full = draw_at(0.0, temperature=0.0)
    assert (token, drawn) == (3, 1.0)
    assert full == pytest.approx(0.4, rel=1e-5)


def test_rows_of_one_batch_keep_their_own_settings() -> None:
    tokens, drawn, _ = draw(
        LOGITS.repeat(3, 1),
        torch.tensor([0.0, 1.0, 1.0]),
        torch.tensor([1.0, 1.0, 1.0]),
        torch.tensor([0, 1, 0]),
        torch.zeros(3, dtype=torch.float64),
    )
    assert tokens.tolist() == [3, 3, 0]
    assert drawn.exp().tolist() == pytest.approx([1.0, 1.0, 0.1])


@pytest.mark.parametrize("size", [4096, 5000])  # a whole number of blocks, and not
def test_a_large_vocabulary_is_sampled_by_its_probabilities(size: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(size) * 3
    probabilities = logits.softmax(-1).double()
    uniform = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    tokens, drawn, _ = draw(
        logits.expand(2000, -1), torch.ones(2000), torch.ones(2000), torch.zeros(2000, dtype=torch.int64), uniform
    )
    upper = probabilities.cumsum(0)[tokens]
    assert ((upper - probabilities[tokens] - 1e-6 <= uniform) & (uniform <= upper + 1e-6)).all()
    assert torch.allclose(drawn.double(), probabilities[tokens].log(), atol=1e-5)


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((1, 4096), -torch.inf)
    logits[0, 1000] = 0.0
    for uniform in (0.0, 0.5, 1 - 2**-53):
        token, drawn, _ = draw(
            logits,
            torch.ones(1),
            torch.ones(1),
            torch.zeros(1, dtype=torch.int64),
            torch.tensor([uniform], dtype=torch.float64),
        )
        assert (int(token), float(drawn)) == (1000, 0.0)


def test_streams_are_uniform_apart_from_each_other_and_repeatable() -> None:
    streams = np.array([stream_of(seed, index) for seed in range(8) for index in range(8)])
    assert len(set(streams.tolist())) == 64
    numbers = np.array([uniforms(streams, np.full(64, position)) for position in range(500)])
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    # 32,000 numbers: the mean's standard error is 0.0016, each decile's share has one of 0.0017.
    assert abs(numbers.mean() - 0.5) < 0.008
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] / numbers.size - 0.1).max() < 0.009
    assert np.abs(np.corrcoef(numbers.T)[np.triu_indices(64, 1)]).max() < 0.25
    assert (numbers[3] == uniforms(streams, np.full(64, 3))).all()
