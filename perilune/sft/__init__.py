"""Supervised fine-tuning as a command: `plan` says what is trained and how, `folder` is where it goes.

The training itself is the trainer's: `services/trainer/sft`, over the stages that a recipe's runs have too.
"""
