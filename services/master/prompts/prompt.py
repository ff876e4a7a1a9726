"""Says how a question and its reference answer become a prompt, and how held-out prompts are kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from perilune.api.trajectory.v1.trajectory_pb2 import ChatMessage, ImageRef, Prompt
from perilune.errors import InvalidInputError
from perilune.images import digest_of_image

QuestionKey = tuple[tuple[str, str], ...]


def make_prompt(
    question: str | Sequence[Mapping[str, Any]],
    reference: str,
    *,
    template: str = "{question}",
    system: str | None = None,
    labels: Mapping[str, str] | None = None,
    environment_json: str | None = None,
) -> Prompt:
    """A prompt from a question's text (put into the template) or from a whole conversation (taken as it is).

    The system message is for conversations that have none of their own.
    """
    if isinstance(question, str):
        messages = [ChatMessage(role="user", content=template.replace("{question}", question))]
    else:
        messages = [_chat_message(turn["role"], turn["content"]) for turn in question]
    if system is not None and not any(message.role == "system" for message in messages):
        messages.insert(0, ChatMessage(role="system", content=system))
    prompt = Prompt(messages=messages, reference=reference, labels=labels, environment_json=environment_json)
    prompt.images.extend(part.image for turn in messages for part in turn.parts if part.HasField("image"))
    prompt.id = blake3(prompt.SerializeToString(deterministic=True)).hexdigest(8)
    return prompt


def _chat_message(role: str, content: str | Sequence[Mapping[str, str]]) -> ChatMessage:
    """A message whose content is text, or a list of parts (`perilune.data.rows.messages_in_parts`)."""
    if isinstance(content, str):
        return ChatMessage(role=role, content=content)
    message = ChatMessage(role=role, content="".join(part["text"] for part in content if part["type"] == "text"))
    for part in content:
        if part["type"] == "text":
            message.parts.add(text=part["text"])
        else:
            message.parts.add(image=ImageRef(digest=part["digest"], media_type=part["media_type"]))
    return message


def parts_by_digest(content: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A content's parts, in which PNGs that were drawn are named by their digests."""
    return [
        {"type": "image", "digest": digest_of_image(part["bytes"]), "media_type": "image/png"}
        if part["type"] == "image"
        else dict(part)
        for part in content
    ]


def question_key(prompt: Prompt) -> QuestionKey:
    """Returns what makes two prompts the same question: what is said, but for spaces, the system, and a response
    begun; and what is shown."""
    said = conversation_key((turn.role, turn.content) for turn in prompt.messages)
    return (*said, *(("image", image.digest) for image in prompt.images))


def conversation_key(turns: Iterable[tuple[str, str]]) -> QuestionKey:
    """See `question_key`; of roles and contents."""
    said = [(role, " ".join(content.split())) for role, content in turns if role != "system"]
    return tuple(said[:-1] if said and said[-1][0] == "assistant" else said)


def digest_of(prompts: Iterable[Prompt]) -> str:
    """A digest of prompts in their order, with all that they hold: their ids are digests of that."""
    return blake3("\n".join(prompt.id for prompt in prompts).encode()).hexdigest(16)


def spread(size: int, count: int) -> list[int]:
    """Some indices of so many, at most `count`, from the first to the last."""
    return sorted({place * (size - 1) // (count - 1) for place in range(count)})


@dataclass(frozen=True)
class ListedPrompts:
    """A prompt set that fits in memory."""

    train_prompts: Sequence[Prompt]
    heldout_prompts: Sequence[Prompt]
    notes: Sequence[str] = ()

    @property
    def num_train(self) -> int:
        """Returns how many prompts there are to train on."""
        return len(self.train_prompts)

    @property
    def num_heldout(self) -> int:
        """Returns how many prompts are held out."""
        return len(self.heldout_prompts)

    @property
    def digest(self) -> str:
        """A digest of all prompts in their order."""
        return digest_of([*self.train_prompts, *self.heldout_prompts])

    def train(self, index: int) -> Prompt:
        """The training prompt of an index."""
        return self.train_prompts[index]

    def heldout(self, index: int) -> Prompt:
        """The held-out prompt of an index."""
        return self.heldout_prompts[index]

    def labels(self, index: int) -> Mapping[str, str]:
        """The labels of a training prompt."""
        return self.train_prompts[index].labels

    def drawn_images(self, index: int, *, held_out: bool) -> Sequence[bytes]:
        """Returns none: whatever images the prompts have lie in the blob store."""
        return ()


def keep_apart(
    train: Sequence[Prompt], heldout: Sequence[Prompt], name: str, notes: Sequence[str] = ()
) -> ListedPrompts:
    """A set in which no question is both trained on and held out: those that are held out leave the training prompts.

    InvalidInputError if none are left to train on.
    """
    keys = set(map(question_key, heldout))
    kept = [prompt for prompt in train if question_key(prompt) not in keys]
    if not kept:
        raise InvalidInputError(
            f"prompts: the questions of all {len(train)} training prompts of {name} are held out too: none are left to "
            "train on; hold other ones out"
        )
    if len(kept) < len(train):
        left_out = (
            f"{len(train) - len(kept)} of {len(train)} training prompts are left out, for their questions are held out"
        )
        notes = [*notes, f"{name}: {left_out}"]
    return ListedPrompts(kept, heldout, notes)


def hold_out(prompts: Sequence[Prompt], num_heldout: int, name: str, notes: Sequence[str] = ()) -> ListedPrompts:
    """Holds the last prompts out. InvalidInputError if none are left to train on."""
    num_train = len(prompts) - num_heldout
    if num_train <= 0:
        raise InvalidInputError(
            f"{name} has {len(prompts)} prompts, of which {num_heldout} are to be held out: none are left to train on; "
            f"set prompts.num_heldout to less than {len(prompts)}"
        )
    return keep_apart(prompts[:num_train], prompts[num_train:], name, notes)
