"""Prompts of text as pictures of it, with the same answers, among those that stay text (k1.5 §2.3.5).

Whatever the source of the prompts is, the last message of the user is drawn; what the system says stays text. Each
prompt gets the label `form`, which is `picture` or `text`, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from perilune.api.trajectory.v1.trajectory_pb2 import ChatMessage, Prompt
from perilune.errors import InvalidInputError
from perilune.images.rendering import RenderTable, check_text, drawn_content, is_drawn
from services.master.prompts.prompt import make_prompt, parts_by_digest, spread

if TYPE_CHECKING:
    from services.master.prompts import PromptSet

FORM, PICTURE, TEXT = "form", "picture", "text"
NUM_LOOKED_AT = 2000  # prompts that are looked at for letters that the font lacks, before anything is drawn


@dataclass(frozen=True)
class RenderedPrompts:
    """A prompt set with questions that are drawn; with `compare`, each held-out one is there as text and as picture."""

    inner: PromptSet
    table: RenderTable
    notes: Sequence[str]

    @property
    def num_train(self) -> int:
        """Returns how many prompts there are to train on."""
        return self.inner.num_train

    @property
    def num_heldout(self) -> int:
        """Returns how many prompts are held out: text and picture count as two."""
        return self.inner.num_heldout * self._forms

    @property
    def digest(self) -> str:
        """A digest of the texts and of how they are drawn: pictures follow from both."""
        return blake3(f"{self.inner.digest}/{self.table.model_dump_json()}".encode()).hexdigest(16)

    def train(self, index: int) -> Prompt:
        """The training prompt of an index."""
        prompt = self.inner.train(index)
        return self._shown(prompt, self._is_drawn(prompt))

    def heldout(self, index: int) -> Prompt:
        """The held-out prompt of an index: of two, the first is text."""
        prompt = self.inner.heldout(index // self._forms)
        return self._shown(prompt, self._is_drawn_heldout(prompt, index))

    def labels(self, index: int) -> Mapping[str, str]:
        """The labels of a training prompt."""
        labels = dict(self.inner.labels(index))
        return labels | {FORM: PICTURE if self._is_drawn(self.inner.train(index)) else TEXT}

    def drawn_images(self, index: int, *, held_out: bool) -> Sequence[bytes]:
        """The picture of a prompt; of one that is not drawn here, those that its own set draws."""
        place = index // self._forms if held_out else index
        prompt = self.inner.heldout(place) if held_out else self.inner.train(place)
        if self._is_drawn_heldout(prompt, index) if held_out else self._is_drawn(prompt):
            content = drawn_content(_text_of(prompt), self.table)
            return [part["bytes"] for part in content if part["type"] == "image"]
        return self.inner.drawn_images(place, held_out=held_out)

    @property
    def _forms(self) -> int:
        return 2 if self.table.compare else 1

    def _is_drawn(self, prompt: Prompt) -> bool:
        return is_drawn(_text_of(prompt), self.table) and reason_to_stay(prompt, self.table) is None

    def _is_drawn_heldout(self, prompt: Prompt, index: int) -> bool:
        if not self.table.compare:
            return self._is_drawn(prompt)
        return index % 2 == 1 and reason_to_stay(prompt, self.table) is None

    def _shown(self, prompt: Prompt, as_picture: bool) -> Prompt:
        return make_prompt(
            [_message(turn) for turn in prompt.messages[:-1]]
            + [_drawn(prompt.messages[-1], self.table) if as_picture else _message(prompt.messages[-1])],
            prompt.reference,
            labels={**prompt.labels, FORM: PICTURE if as_picture else TEXT},
            environment_json=prompt.environment_json if prompt.HasField("environment_json") else None,
        )


def open_rendered(prompts: PromptSet, table: RenderTable) -> RenderedPrompts:
    """Draws a prompt set. InvalidInputError: none of the prompts that were looked at can be drawn."""
    looked_at = [prompts.train(index) for index in spread(prompts.num_train, NUM_LOOKED_AT)]
    reasons = [reason for prompt in looked_at if (reason := reason_to_stay(prompt, table))]
    if len(reasons) == len(looked_at):
        raise InvalidInputError(f"prompts.render: no question can be drawn; the first: {reasons[0]}")
    notes = list(prompts.notes)
    if reasons:
        notes.append(
            f"{len(reasons)} of {len(looked_at)} prompts that were looked at stay text, the first because {reasons[0]}"
        )
    return RenderedPrompts(prompts, table, notes)


def reason_to_stay(prompt: Prompt, table: RenderTable) -> str | None:
    """The reason why a prompt is not drawn; None if it can be."""
    if prompt.images:
        return "it has images already"
    if prompt.messages[-1].role != "user":
        return f"its last message is of the {prompt.messages[-1].role}"
    try:
        check_text(_text_of(prompt), table)
    except InvalidInputError as error:
        return str(error)
    return None


def _text_of(prompt: Prompt) -> str:
    return prompt.messages[-1].content


def _message(turn: ChatMessage) -> dict[str, Any]:
    return {"role": turn.role, "content": turn.content if not turn.parts else [_part(part) for part in turn.parts]}


def _part(part: Any) -> dict[str, Any]:
    if part.HasField("image"):
        return {"type": "image", "digest": part.image.digest, "media_type": part.image.media_type}
    return {"type": "text", "text": part.text}


def _drawn(turn: ChatMessage, table: RenderTable) -> dict[str, Any]:
    return {"role": turn.role, "content": parts_by_digest(drawn_content(turn.content, table))}
