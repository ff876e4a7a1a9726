"""Given tokens are scored in chunks, and every position has what one plain forward pass of the model gives there."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import UnavailableError
from services.rollout.engines.base import TokenScores, TokensToScore, promise
from services.rollout.engines.embedded import scoring
from services.rollout.engines.embedded.scoring import Scorer
from services.rollout.engines.embedded.sight import Sight
from tests.unit.families import tiny
from tests.unit.rollout.tiny import Caller, sample, tiny_llama

VERSION = PolicyVersion(number=3)
TOKENS = np.array([1, 9, 31, 7, 9, 40, 22, 5, 13, 50, 8, 8, 19], dtype=np.int32)


def wanted(tokens: np.ndarray = TOKENS, first: int = 1, num_top: int = 3) -> TokensToScore:
    """All positions from one on, to the one behind the last token; two ids that are chosen at each."""
    positions = np.arange(first, len(tokens) + 1)
    chosen = np.stack([positions % 7 + 3, positions % 11 + 20], 1).astype(np.int32)
    return TokensToScore(tokens, positions, chosen, num_top)


@torch.no_grad()
def plain(model: PreTrainedModel, tokens: np.ndarray) -> torch.Tensor:
    """log softmax(logits) at positions 1 to len(tokens)."""
    return model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].float().log_softmax(-1)


def check(model: PreTrainedModel, asked: TokensToScore, scores: TokenScores) -> None:
    table = plain(model, asked.tokens)[asked.positions - 1]
    own = torch.from_numpy(asked.tokens[asked.positions[:-1]].astype(np.int64))[:, None]
    expected = table[:-1].gather(1, own)
    assert np.allclose(scores.logprobs[:-1], expected[:, 0], atol=1e-4)
    assert np.isnan(scores.logprobs[-1])
    assert scores.ranks.tolist() == [*(table[:-1] >= expected).sum(1).tolist(), 0]
    chosen = table.gather(1, torch.from_numpy(asked.chosen.astype(np.int64))).numpy()
    assert np.allclose(scores.chosen, chosen, atol=1e-4)
    top = table.topk(asked.num_top)
    assert scores.top_ids.tolist() == top.indices.tolist()
    assert np.allclose(scores.top_logprobs, top.values, atol=1e-4)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK_TOKENS", 5)


def scored(model: PreTrainedModel, *texts: TokensToScore) -> list[TokenScores]:
    scorer, done = Scorer(model, Sight(model)), [promise() for _ in texts]
    for text, future in zip(texts, done, strict=True):
        scorer.add(text, future)
    with torch.inference_mode():
        while scorer.has_work:
            scorer.read_chunk(VERSION)
    return [future.result(0) for future in done]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_oss", "granite", "deepseek_v3"])
def test_chunks_of_several_texts_give_what_a_plain_pass_gives(family: str) -> None:
    """With windows, sinks, scaled logits and latent attention too, across the borders of chunks."""
    model = tiny(family)
    texts = [wanted(TOKENS[:3]), wanted(), wanted(TOKENS[::-1].copy(), first=6, num_top=0), wanted(TOKENS[:1])]
    for asked, scores in zip(texts, scored(model, *texts), strict=True):
        assert scores.policy is VERSION
        check(model, asked, scores)


@pytest.mark.usefixtures("small_chunks")
def test_no_text_is_read_by_two_versions() -> None:
    older, newer = tiny_llama(0), tiny_llama(1)
    scorer, done = Scorer(older, Sight(older)), promise()
    asked = wanted()
    scorer.add(asked, done)
    with torch.inference_mode():
        scorer.read_chunk(VERSION)
        older.load_state_dict(newer.state_dict())
        after = PolicyVersion(number=4)
        while scorer.has_work:
            scorer.read_chunk(after)
    assert done.result(0).policy is after
    check(newer, asked, done.result(0))


def test_an_engine_scores_while_it_writes_and_gives_up_what_is_left_at_its_end() -> None:
    model = tiny_llama()
    caller = Caller(model)
    alone = caller.generate([sample("alone", [5, 9, 31], 60)])["alone"]
    caller.delivered = []
    caller.engine.submit([sample("beside", [5, 9, 31], 60)])
    scores = caller.engine.score(wanted()).result(30)
    (beside,) = caller.wait_for(1)
    check(model, wanted(), scores)
    assert [span.tokens.tolist() for span in beside.spans] == [span.tokens.tolist() for span in alone.spans]
    caller.engine.close()
    late: Future[TokenScores] = promise()
    scorer = Scorer(model, Sight(model))
    scorer.add(wanted(), late)
    scorer.close()
    with pytest.raises(UnavailableError):
        late.result(0)
