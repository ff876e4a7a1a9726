"""Attention of our own in a Hugging Face model: how it is put in, and what engine and trainer share of it.

`dense` has sequences of one length, `packed` a row of sequences of any lengths, with a kernel for each kind of device.
"""

from perilune.models.attention.dense import causal_attention as causal_attention
from perilune.models.attention.interface import attention_of as attention_of
from perilune.models.attention.interface import set_attention as set_attention
from perilune.models.attention.interface import use_attention as use_attention
from perilune.models.attention.packed import Layout as Layout
from perilune.models.attention.packed import packed_causal_attention as packed_causal_attention
