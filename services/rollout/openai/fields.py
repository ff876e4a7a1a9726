"""Fields of a request that no engine here acts on: refused where they would change the answer, ignored where not."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from perilune.errors import InvalidInputError

IGNORED_HEADER = "x-perilune-ignored"  # of an answer: the fields of its request that were not looked at
MAX_HEADER_CHARS = 2000
ALIKE = 0.85  # from which on a name that is not known is taken for a slip of the pen

# Fields that would change the answer, and the values with which they ask for nothing; null does so in any field.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    # of OpenAI's
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "verbosity": ("medium",),
    "reasoning_effort": (),
    # of vLLM's, SGLang's and others'
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "min_p": (0,),
    "top_a": (0,),
    "typical_p": (1,),
    "min_tokens": (0,),
    "min_new_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "add_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "use_beam_search": (False,),
    "num_beams": (1,),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "json_schema": (),
    "regex": (),
    "ebnf": (),
    "grammar": (),
    "chat_template": (),
    "documents": ([],),
    "prompt_embeds": (),
    "lora_path": (),
    # of the other endpoint
    "best_of": (1,),
    "echo": (False,),
    "score": (),
    "messages": (),
    "prompt": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "max_completion_tokens": (),
}


class FieldError(InvalidInputError):
    """A field of a request is wrong; the text begins with its name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem if problem.startswith(field) else f"{field}: {problem}")
        self.field = field


def sort_out(body: Mapping[str, Any], known: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Splits a request into fields to read, without nulls, and names of fields to ignore.

    FieldError: a field would change the answer in a way that no engine here can, or looks like a misspelt known one.
    """
    given = {name: value for name, value in body.items() if value is not None}
    unknown = [name for name in given if name not in known]
    for name in unknown:
        _check_unknown(name, given[name], known)
    ignored = [name for name in unknown if name not in UNSUPPORTED]
    return {name: value for name, value in given.items() if name in known}, ignored


def _check_unknown(name: str, value: Any, known: Collection[str]) -> None:
    if name in UNSUPPORTED:
        if value not in UNSUPPORTED[name]:
            raise FieldError(name, f"no engine here can do this{_neutral(UNSUPPORTED[name])}")
    elif alike := difflib.get_close_matches(name, [*known, *UNSUPPORTED], n=1, cutoff=ALIKE):
        raise FieldError(name, f"there is no such field; is {alike[0]} meant?")


def _neutral(values: tuple[Any, ...]) -> str:
    return f"; leave it out, or send {' or '.join(map(repr, values))}" if values else "; leave it out"


def header(ignored: Iterable[str]) -> dict[str, str]:
    """The header that names what was ignored; none if nothing was. Other than plain characters are percent-encoded."""
    names = ", ".join(quote(name, safe="") for name in ignored)
    return (
        {IGNORED_HEADER: names if len(names) <= MAX_HEADER_CHARS else f"{names[:MAX_HEADER_CHARS]}..."} if names else {}
    )
