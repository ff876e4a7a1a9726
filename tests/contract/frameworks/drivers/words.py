"""A tokenizer of a few words with a chat template, for the frameworks that want one."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

QUESTION = "what is 1 + 1 ?"
RIGHT = "answer: 2"
END = "<|im_end|>"
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", END, *sorted({*QUESTION.split(), *RIGHT.split()})]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token=END, clean_up_tokenization_spaces=False
    )
    made.chat_template = TEMPLATE
    return made
