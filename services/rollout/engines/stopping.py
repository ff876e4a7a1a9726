"""Stop strings: which samples might have just written one, and whether they did."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REPLACEMENT = "�"  # what a tokenizer shows for a piece of a character


class StopTexts:
    """Finds stop strings at the end of a response. One table lookup a token rules nearly every check out."""

    def __init__(self, tokenizer: Any, vocab_size: int, stop: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        # A character has at most four bytes, and a token at least one.
        self._tail_tokens = 4 * max(len(text) for text in stop) + 4
        self._may_complete = _may_complete(tokenizer, vocab_size, stop)

    def reached(self, tokens: list[int], start: int) -> bool:
        """Tests whether the last token completed a stop string in the response, which begins at `start`."""
        if not self._may_complete[tokens[-1]]:
            return False
        tail = self._tokenizer.decode(tokens[max(start, len(tokens) - self._tail_tokens) :], skip_special_tokens=False)
        return any(text in tail for text in self._stop)


def _may_complete(tokenizer: Any, vocab_size: int, stop: tuple[str, ...]) -> NDArray[np.bool_]:
    """For every token, whether it could complete a stop string: it shows the last character of one, or a piece of one.

    Where a stop string ends in space, any token could: some tokenizers write a space only before the next word.
    """
    lasts = {text[-1] for text in stop}
    if any(last.isspace() for last in lasts):
        return np.ones(vocab_size, dtype=bool)
    texts = tokenizer.batch_decode([[token] for token in range(vocab_size)], skip_special_tokens=False)
    return np.array([REPLACEMENT in text or not lasts.isdisjoint(text) for text in texts])
