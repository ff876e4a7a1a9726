"""How a question and its reference answer become a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

from perilune.api.trajectory.v1.trajectory_pb2 import ChatMessage, Prompt


def make_prompt(
    question: str | Sequence[Mapping[str, str]],
    reference: str,
    *,
    template: str = "{question}",
    system: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Prompt:
    """A prompt from a question's text (put into the template) or from a whole conversation (taken as it is)."""
    if isinstance(question, str):
        messages = [ChatMessage(role="user", content=template.replace("{question}", question))]
    else:
        messages = [ChatMessage(role=turn["role"], content=turn["content"]) for turn in question]
    if system is not None:
        messages.insert(0, ChatMessage(role="system", content=system))
    prompt = Prompt(messages=messages, reference=reference, labels=labels)
    prompt.id = blake3(prompt.SerializeToString(deterministic=True)).hexdigest(8)
    return prompt


@dataclass(frozen=True)
class ListedPrompts:
    """A prompt set that fits in memory."""

    train_prompts: Sequence[Prompt]
    heldout_prompts: Sequence[Prompt]

    @property
    def num_train(self) -> int:
        return len(self.train_prompts)

    @property
    def num_heldout(self) -> int:
        return len(self.heldout_prompts)

    def train(self, index: int) -> Prompt:
        return self.train_prompts[index]

    def heldout(self, index: int) -> Prompt:
        return self.heldout_prompts[index]
