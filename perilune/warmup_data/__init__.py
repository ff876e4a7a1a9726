"""Verified reasoning paths for the warm-up before reinforcement learning (k1.5 §2.2): `perilune warmup-data`.

plan         what is read, who writes, who grades, the styles that are asked for
behaviours   which of planning, evaluation, reflection and exploration a path shows: by rules, or by a model
balance      which of the right paths are kept
pipeline     the whole: asked, graded, labelled, balanced, written
report       the same numbers as a page
"""
