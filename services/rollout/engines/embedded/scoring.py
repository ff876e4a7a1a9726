"""Log-probabilities of given tokens: texts are read in chunks, one between every two passes that write.

A chunk holds pieces of several texts. A text that is longer than a chunk keeps its keys and values until its last piece
is read; no more than a chunk's logits are ever there at once. A text is read by one version: when weights change, those
under way begin again.

Left out: texts that begin alike do not share what was read.

Shapes: N packed tokens, P positions, V vocabulary, C chosen ids, K most likely ids.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError, UnavailableError
from perilune.models.attention import attention_of, causal_attention, set_attention
from perilune.models.vision.embedding import put
from services.rollout.engines.base import TokenScores, TokensToScore
from services.rollout.engines.embedded import sight
from services.rollout.engines.embedded.sight import Sight, joined_positions

ATTENTION = "perilune_reading"
CHUNK_TOKENS = 512
MAX_LOGITS = 1 << 24  # of a chunk; 64 MiB in float32


@dataclass
class _Text:
    """A text to be read, as far as it is."""

    wanted: TokensToScore
    done: Future[TokenScores]
    policy: PolicyVersion | None = None  # that reads it
    num_read: int = 0
    cache: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # each layer's keys and values, [1, G, L, D]
    parts: list[TokenScores] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens to read: those before the last position."""
        return int(self.wanted.positions[-1])

    def begin_again(self, policy: PolicyVersion) -> None:
        self.policy, self.num_read, self.cache, self.parts = policy, 0, {}, []


@dataclass(frozen=True)
class Piece:
    """Tokens of one text that are read in one chunk."""

    text: _Text
    start: int
    end: int

    @property
    def wanted(self) -> slice:
        """Returns which of the text's positions are scored by what this piece reads."""
        first, last = np.searchsorted(self.text.wanted.positions, [self.start + 1, self.end + 1])
        return slice(int(first), int(last))

    def context(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of all that was read of the text, with these; kept unless the text ends here."""
        if layer in self.text.cache:
            old_key, old_value = self.text.cache[layer]
            key, value = torch.cat([old_key, key], 2), torch.cat([old_value, value], 2)
        if self.end < self.text.length:
            self.text.cache[layer] = (key, value)
        return key, value


class Scorer:
    """The texts to be read, in the order in which they came. For the engine's own thread."""

    def __init__(self, model: Any, sight: Sight) -> None:
        AttentionInterface.register(ATTENTION, attend)
        self._model, self._sight = model, sight
        vocab_size = int(model.config.get_text_config().vocab_size)
        self._chunk_tokens = max(1, min(CHUNK_TOKENS, MAX_LOGITS // vocab_size))
        self._texts: deque[_Text] = deque()

    @property
    def has_work(self) -> bool:
        """Tests whether there is anything to read."""
        return bool(self._texts)

    def add(self, wanted: TokensToScore, done: Future[TokenScores]) -> None:
        """Queues a text that has at least one position to score. InvalidInputError (in the future): of its images."""
        try:
            self._sight.look(each.image for each in wanted.images)
        except InvalidInputError as error:
            done.set_exception(error)
            return
        self._texts.append(_Text(wanted, done))

    def read_chunk(self, policy: PolicyVersion) -> None:
        """Reads the next chunk by the version that serves; completes the texts that end in it."""
        for text in self._texts:
            if text.policy is not policy:
                text.begin_again(policy)
        pieces = plan(self._texts, self._chunk_tokens)
        logits_PV = self._logits(pieces)
        counts = [piece.wanted.stop - piece.wanted.start for piece in pieces]
        for piece, own_PV in zip(pieces, logits_PV.split(counts), strict=True):
            piece.text.parts.append(_scores(piece, own_PV, policy))
            piece.text.num_read = piece.end
        while self._texts and self._texts[0].num_read == self._texts[0].length:
            text = self._texts.popleft()
            text.done.set_result(_joined(text.parts))

    def close(self) -> None:
        """Gives up what was not read."""
        while self._texts:
            self._texts.popleft().done.set_exception(UnavailableError("the engine ended; try again in a moment"))

    def _logits(self, pieces: Sequence[Piece]) -> Tensor:
        """The logits for the wanted positions of all pieces, float32, [P, V]."""
        device = self._model.device
        tokens = np.concatenate([piece.text.wanted.tokens[piece.start : piece.end] for piece in pieces])
        places = joined_positions([self._positions(piece) for piece in pieces])
        starts = itertools.accumulate((piece.end - piece.start for piece in pieces), initial=0)
        vectors = self._sight.vectors(
            [
                sight.Piece(piece.text.wanted.images, piece.start, piece.end, start)
                for piece, start in zip(pieces, starts, strict=False)
            ]
        )
        ids_N = torch.from_numpy(tokens.astype(np.int64)).to(device)
        shown = {"input_ids": ids_N[None]} if vectors is None else {"inputs_embeds": put(self._model, ids_N, *vectors)}
        with _reading(self._model):
            logits: Tensor = self._model(
                **shown,
                position_ids=torch.from_numpy(places)[..., None, :].to(device),
                use_cache=False,
                logits_to_keep=torch.from_numpy(_rows(pieces)).to(device),
                pieces=pieces,
            ).logits[0]
        return logits.float()

    def _positions(self, piece: Piece) -> NDArray[np.int64]:
        """The positions of a piece's tokens, as the model has them."""
        wanted = piece.text.wanted
        own = self._sight.positions(wanted.tokens.tolist(), wanted.images)
        return np.arange(piece.start, piece.end) if own is None else own[:, piece.start : piece.end]


def plan(texts: Sequence[_Text] | deque[_Text], room: int) -> list[Piece]:
    """The next tokens of the first texts, as many as a chunk has room for."""
    pieces: list[Piece] = []
    for text in texts:
        if not room:
            break
        length = min(room, text.length - text.num_read)
        pieces.append(Piece(text, text.num_read, text.num_read + length))
        room -= length
    return pieces


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    pieces: Sequence[Piece],
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attention of one layer over a chunk: each piece to its own text. See `passes.attend` for shapes.

    What it does not do, a model was refused for when the engine was made.
    """
    attended = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
    start = 0
    for piece in pieces:
        span = slice(start, start + piece.end - piece.start)
        context = piece.context(module.layer_idx, key[:, :, span], value[:, :, span])  # type: ignore[arg-type]
        own = causal_attention(query[:, :, span], *context, scaling, sliding_window, s_aux)
        attended[span] = own[0].transpose(0, 1)
        start = span.stop
    return attended[None], None


@contextmanager
def _reading(model: Any) -> Iterator[None]:
    """The model with the attention of this file."""
    writing = attention_of(model)
    set_attention(model, ATTENTION)
    try:
        yield
    finally:
        set_attention(model, writing)


def _rows(pieces: Sequence[Piece]) -> NDArray[np.int64]:
    """Returns which packed tokens give the logits of wanted positions: each the one before its position."""
    rows, start = [], 0
    for piece in pieces:
        rows.append(piece.text.wanted.positions[piece.wanted] - 1 - piece.start + start)
        start += piece.end - piece.start
    return np.concatenate(rows)


def _scores(piece: Piece, logits_PV: Tensor, policy: PolicyVersion) -> TokenScores:
    wanted, positions = piece.text.wanted, piece.text.wanted.positions[piece.wanted]
    has_own_P = positions < len(wanted.tokens)
    own_P = wanted.tokens[np.where(has_own_P, positions, 0)].astype(np.int64)
    chosen_PC = wanted.chosen[piece.wanted].astype(np.int64)
    total_P1 = logits_PV.logsumexp(-1, keepdim=True)
    own_P1 = logits_PV.gather(-1, torch.from_numpy(own_P)[:, None].to(logits_PV.device))
    top = logits_PV.topk(wanted.num_top)
    return TokenScores(
        policy,
        np.where(has_own_P, _numpy((own_P1 - total_P1)[:, 0]), np.float32(np.nan)),
        np.where(has_own_P, _numpy((logits_PV >= own_P1).sum(-1, dtype=torch.int32)), np.int32(0)),
        _numpy(logits_PV.gather(-1, torch.from_numpy(chosen_PC).to(logits_PV.device)) - total_P1),
        _numpy(top.indices.to(torch.int32)),
        _numpy(top.values - total_P1),
    )


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()


def _joined(parts: Sequence[TokenScores]) -> TokenScores:
    return TokenScores(
        parts[0].policy,
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("logprobs", "ranks", "chosen", "top_ids", "top_logprobs")
        ),
    )
