"""TRL's own trainer, two steps on a tiny model, with the reward service as its reward."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from perilune.integrations.trl import RewardFunction
from tests.integration.serving import reward_service

WORDS = ["<pad>", "<eos>", "?", "yes", "no"]


def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A model of a few thousand parameters over five words."""
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", padding_side="left")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config), tokenizer


def test_two_steps_of_grpo(tmp_path: Path) -> None:
    model, tokenizer = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with reward_service(tmp_path) as service:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=[
                RewardFunction(
                    {"name": "format", "options": {"pattern": "(yes|no)( .*)?"}}, service.address, name="shape"
                ),
                RewardFunction("numeric", service.address, name="unscorable"),  # no reference here is a number
            ],
            train_dataset=Dataset.from_dict({"prompt": ["?"] * 8, "answer": ["yes"] * 8}),
            args=GRPOConfig(
                output_dir=str(tmp_path),
                max_steps=2,
                num_generations=8,
                per_device_train_batch_size=8,
                max_completion_length=2,
                learning_rate=0.1,
                logging_steps=1,
                report_to="none",
                save_strategy="no",
                use_cpu=True,
                seed=3,
            ),
        )
        trainer.train()
    steps = [entry for entry in trainer.state.log_history if "rewards/shape/mean" in entry]
    assert len(steps) == 2
    for step in steps:
        assert 0 < step["rewards/shape/mean"] < 1  # some answers are yes or no
        assert step["rewards/unscorable/mean"] is None  # TRL's word for NaN: no failure became a zero
        assert step["unscorable/unscored"] == 1.0
        assert step["reward"] == step["rewards/shape/mean"]
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
