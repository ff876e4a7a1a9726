"""A served model's tokenizer, for callers that cut texts into tokens as the model does: harnesses that score texts."""

from __future__ import annotations

from typing import Any

from perilune.errors import NotFoundError


def tokenizer_info(tokenizer: Any) -> dict[str, Any]:
    """The special tokens and the chat template, as vLLM's server shows them; no template is null."""
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: str(token) for name in names if (token := getattr(tokenizer, name, None)) is not None}
    template = getattr(tokenizer, "chat_template", None)
    return {"tokenizer_class": type(tokenizer).__name__, "chat_template": template, **special}


def tokenizer_json(tokenizer: Any) -> str:
    """The whole tokenizer, as a model's folder has it in tokenizer.json. NotFoundError if it is not of that kind."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise NotFoundError(f"a {type(tokenizer).__name__} has no tokenizer.json")
    return str(backend.to_str())
