"""The text of a response for graders, environments and people, with or without the model's special tokens.

The rollout service makes it, and the trainer makes it again: what was graded is what the tokens say.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ResponseText:
    """Makes text of response tokens."""

    tokenizer: Any
    keep_special: bool = False  # show special tokens, such as `<think>` or `<|tool_call|>` where they are ones
    end_tokens: Collection[int] = ()  # that end a response: the last one is no part of what it says

    def __call__(self, tokens: list[int]) -> str:
        """Decodes response tokens."""
        if not self.keep_special:
            return str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        has_end = bool(tokens) and tokens[-1] in self.end_tokens
        return str(self.tokenizer.decode(tokens[:-1] if has_end else tokens, skip_special_tokens=False))
