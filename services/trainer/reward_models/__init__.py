"""Reward models (k1.5 §2.3.5): a value head on a language model, and judges that reason before they say a verdict.

`small` → `classic` or `judges` → `training` → `commands`, and `server`, which answers with a value head as a grader.
"""
