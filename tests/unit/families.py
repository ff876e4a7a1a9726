"""Tiny models of many families, with random weights large enough that every layer matters."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
}
# What each differs in from SHAPE. Of all kinds: windows, chunks, sinks, caps, learned positions, latent attention,
# experts, convolutions, state spaces, linear attention.
FAMILIES: dict[str, dict[str, Any]] = {
    "cohere2": WINDOW,
    "deepseek_v3": LATENT,
    "diffllama": {},
    "falcon": {"alibi": True},
    "gemma2": WINDOW | {"head_dim": 8},
    "gemma3_text": WINDOW | {"head_dim": 8},
    "gpt2": {},
    "gpt_oss": WINDOW | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gptj": {"rotary_dim": 4},
    "granite": {"logits_scaling": 4.0},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"], "num_local_experts": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "llama": {},
    "llama4_text": EXPERTS
    | {
        "attention_chunk_size": 6,
        "layer_types": ["chunked_attention", "full_attention"],
        "intermediate_size_mlp": 48,
        "num_local_experts": 4,
        "head_dim": 8,
    },
    "mamba": {"state_size": 8},
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "block_size": 8, "num_local_experts": 4},
    "mistral": {"sliding_window": 6},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "nemotron": {},
    "olmo2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi3": {},
    "qwen2": {},
    "qwen3_moe": EXPERTS | {"head_dim": 8},
}


def tiny(family: str, std: float | None = 0.2, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """The family's causal language model, in evaluation mode; `std` None: as a new one is initialised."""
    config = CONFIG_MAPPING[family](**(SHAPE | FAMILIES[family] | changes))
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if std and (tensor.ndim > 1 or "sinks" in name):
                tensor.normal_(0, std)
    return model
