"""Text out of tokens as they come: what is certain at once, and nothing that a later token could still change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.rollout.engines.stopping import REPLACEMENT


class StreamText:
    """The text of a response without its special tokens, and without the stop text that ended it.

    Each new text is decoded together with the tokens of the one before, for many tokenizers write a token according to
    what precedes it. So a token costs the same however long the response is.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._held_back = max((len(stop) for stop in stops), default=1) - 1  # characters that a stop may begin with
        self._tokens: list[int] = []
        self._context = 0  # where the tokens of the text before begin
        self._read = 0  # tokens whose text is known
        self._pending = ""  # known, and not yet given out
        self._stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """The text that is certain now, as far as it was not given out before."""
        self._tokens += tokens
        self._decode(final=False)
        return self._give_out(self._held_back)

    def end(self) -> str:
        """The rest."""
        self._decode(final=True)
        return self._give_out(0)

    def _decode(self, final: bool) -> None:
        known = self._text(self._context, self._read)
        text = self._text(self._context, len(self._tokens))
        if final or (len(text) > len(known) and not text.endswith(REPLACEMENT)):
            self._pending += text[len(known) :]
            self._context, self._read = self._read, len(self._tokens)

    def _text(self, start: int, end: int) -> str:
        return str(self._tokenizer.decode(self._tokens[start:end], skip_special_tokens=True))

    def _give_out(self, held_back: int) -> str:
        if self._stopped:
            return ""
        found = [place for stop in self._stops if (place := self._pending.find(stop)) >= 0]
        end = min(found) if found else max(0, len(self._pending) - held_back)
        text, self._pending = self._pending[:end], self._pending[end:]
        self._stopped = bool(found)
        return text
