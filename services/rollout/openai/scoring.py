"""Says what an answer says of log-probabilities beyond those of drawn tokens: alternatives, a prompt's own, chosen
ids'.

A prompt is read once for all of it; responses are read again where alternatives to their tokens are wanted. So any
engine that scores given tokens can, and what draws tokens knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perilune.policies import version_as_json
from services.rollout.engines.base import TokenScores, TokensToScore
from services.rollout.openai.fields import FieldError
from services.rollout.openai.request import Score

MAX_SCORES = 1 << 22  # values of one request, or 16 MiB; as JSON several times as much


@dataclass(frozen=True)
class TokenDetails:
    """Describes what is known of the token at one place: its log-probability, its rank, and the likeliest there."""

    logprob: float | None
    rank: int | None
    top: Mapping[int, float]  # by token id, the most likely first


def to_score(tokens: NDArray[np.int32], first: int, end: int, num_top: int) -> TokensToScore:
    """Positions first to end - 1 of these tokens."""
    positions = np.arange(first, end, dtype=np.int64)
    return TokensToScore(tokens, positions, np.zeros((len(positions), 0), dtype=np.int32), num_top)


def chosen_to_score(wanted: Score, tokens: NDArray[np.int32], vocab_size: int) -> TokensToScore:
    """Returns what a request's `score` asks for. FieldError: positions or ids that are none, or too many."""
    positions = list(range(1, len(tokens))) if wanted.positions is None else wanted.positions
    if any(not 1 <= position <= len(tokens) for position in positions):
        raise FieldError("score.positions", f"must be 1 to {len(tokens)}, the prompt's length in tokens")
    if any(after <= before for before, after in pairwise(positions)):
        raise FieldError("score.positions", "must ascend, each once")
    rows = _rows(wanted, len(positions))
    if len({len(row) for row in rows}) > 1:
        raise FieldError("score.token_ids", "every position needs as many ids as the others")
    if any(token >= vocab_size for row in rows for token in row):
        raise FieldError("score.token_ids", f"ids are 0 to {vocab_size - 1}")
    if wanted.top > vocab_size:
        raise FieldError("score.top", f"there are {vocab_size} ids in all")
    width = len(rows[0]) if rows else 0
    if len(positions) * (width + wanted.top) > MAX_SCORES:
        raise FieldError("score", f"asks for more than {MAX_SCORES} values; ask in parts")
    chosen = np.array(rows, dtype=np.int32).reshape(len(positions), width)
    return TokensToScore(tokens, np.array(positions, dtype=np.int64), chosen, wanted.top)


def _rows(wanted: Score, num_positions: int) -> Sequence[Sequence[int]]:
    ids: list[Any] = wanted.token_ids
    if not ids or not isinstance(ids[0], list):
        return [ids] * num_positions
    if len(ids) != num_positions:
        raise FieldError("score.token_ids", f"has {len(ids)} lists for {num_positions} positions")
    return ids


def details(scores: TokenScores) -> list[TokenDetails]:
    """Returns what is known of the token at each position."""
    tops = zip(scores.top_ids.tolist(), scores.top_logprobs.tolist(), strict=True)
    rows = zip(scores.logprobs.tolist(), scores.ranks.tolist(), tops, strict=True)
    return [
        TokenDetails(logprob if rank else None, rank or None, dict(zip(ids, logprobs, strict=True)))
        for logprob, rank, (ids, logprobs) in rows
    ]


def scores_as_json(wanted: TokensToScore, scores: TokenScores) -> dict[str, Any]:
    """Returns what `score` asked for, as it is answered: lists with an entry for each position."""
    known = details(scores)
    return version_as_json(scores.policy) | {
        "positions": wanted.positions.tolist(),
        "logprobs": [each.logprob for each in known],
        "ranks": [each.rank for each in known],
        "token_ids": wanted.chosen.tolist(),
        "token_logprobs": scores.chosen.tolist(),
        "top_token_ids": scores.top_ids.tolist(),
        "top_logprobs": scores.top_logprobs.tolist(),
    }


def prompt_logprobs_as_json(
    tokens: Sequence[int], known: Sequence[TokenDetails], num: int, tokenizer: Any
) -> list[Any]:
    """A prompt's log-probabilities as vLLM writes them: for each token a table by id, of it and the likeliest."""
    rows: list[Any] = [None]
    for token, each in zip(tokens[1:], known, strict=False):
        assert each.logprob is not None
        likeliest = list(each.top.items())[:num]
        row = {token: (each.logprob, each.rank)} | {
            other: (logprob, place + 1) for place, (other, logprob) in enumerate(likeliest) if other != token
        }
        rows.append(
            {
                str(number): {"logprob": logprob, "rank": rank, "decoded_token": tokenizer.decode([number])}
                for number, (logprob, rank) in row.items()
            }
        )
    return rows
