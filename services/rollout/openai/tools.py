"""Tool calls, as the model's own chat template writes them: learnt from the template, found in what the model says.

A template is shown a call of a tool of ours, and what it makes of it says how the model was taught to call: what stands
before the JSON object, and under which key the arguments are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from perilune.models.chat import chat_text
from services.rollout.openai.fields import FieldError

_TOOL = "perilune_probe"
_ARGUMENTS = {"word": "perilune"}
_DECODER = json.JSONDecoder()
_BETWEEN = " \n\t,;["  # what may stand before a call and between two


@dataclass(frozen=True)
class CallForm:
    """Describes how a model writes a call: `opening`, then an object with the tool's name and, under a key, its
    arguments."""

    opening: str  # empty where a message that calls is the bare object
    arguments_key: str

    def read(self, tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[dict[str, Any]]]:
        """The text before the first call, and the calls in OpenAI's form; none where what is there is no call."""
        text = tokenizer.decode(list(tokens), skip_special_tokens=False)
        begin = place = text.find(self.opening)
        calls: list[dict[str, Any]] = []
        while place >= 0:
            found, end = self._calls(text, place + len(self.opening))
            calls += found
            place = text.find(self.opening, end) if self.opening and found else -1
        before = text[: max(0, begin)]
        for special in tokenizer.all_special_tokens:
            before = before.replace(special, "")
        return before.strip(), calls

    def _calls(self, text: str, place: int) -> tuple[list[dict[str, Any]], int]:
        """The calls that follow one another from a place on, and where they end."""
        calls: list[dict[str, Any]] = []
        while call := self._call(text, place):
            written, place = call
            calls.append(_as_openai(written["name"], written[self.arguments_key]))
        return calls, place

    def _call(self, text: str, place: int) -> tuple[dict[str, Any], int] | None:
        rest = text[place:]
        try:
            call, end = _DECODER.raw_decode(text, place + len(rest) - len(rest.lstrip(_BETWEEN)))
        except (ValueError, RecursionError):
            return None
        is_call = isinstance(call, dict) and isinstance(call.get("name"), str) and self.arguments_key in call
        return (call, end) if is_call else None


def call_form(tokenizer: Any, tools: Sequence[dict[str, Any]]) -> CallForm:
    """Returns how the model writes calls. FieldError: its chat template takes no tools, or writes calls in no known
    form."""
    template = tokenizer.chat_template
    templates = list(template.values()) if isinstance(template, dict) else [template or ""]
    if not any("tools" in each for each in templates):
        raise FieldError("tools", "the model's chat template takes none")
    turn = _shown_call(tokenizer, tools)
    for start in [place for place, letter in enumerate(turn) if letter == "{"]:
        if key := _arguments_key(turn, start):
            return CallForm((turn[:start].rstrip(_BETWEEN).splitlines() or [""])[-1].strip(), key)
    raise FieldError("tools", "the model's chat template writes calls of tools in a form that is not known here")


def _shown_call(tokenizer: Any, tools: Sequence[dict[str, Any]]) -> str:
    """A turn of the assistant in which it calls our tool, as the template shows it."""
    question: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
    call = {"id": "call00000", "type": "function", "function": {"name": _TOOL, "arguments": _ARGUMENTS}}
    called = [*question, {"role": "assistant", "content": "", "tool_calls": [call]}]
    asked, shown = chat_text(tokenizer, question, tools), chat_text(tokenizer, called, tools, is_closed=True)
    differs = (place for place, (before, here) in enumerate(zip(asked, shown, strict=False)) if before != here)
    return shown[next(differs, min(len(asked), len(shown))) :]


def _arguments_key(turn: str, start: int) -> str | None:
    """The key of our arguments in a call that is written at a place; None where none is."""
    try:
        written, _ = _DECODER.raw_decode(turn, start)
    except ValueError:
        return None
    if not isinstance(written, dict) or written.get("name") != _TOOL:
        return None
    return next((key for key, value in written.items() if value in (_ARGUMENTS, json.dumps(_ARGUMENTS))), None)


def _as_openai(name: str, arguments: Any) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": {"name": name, "arguments": text}}
