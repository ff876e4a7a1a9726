"""`perilune sft`: the stages of supervised fine-tuning alone, in a folder of their own.

`training` runs them over the trainer's stages; `outputs` writes what there is to keep; `display` shows how it goes.
"""
