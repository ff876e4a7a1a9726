"""Evaluations: tasks that a model is measured by, their figures, and the harnesses that others wrote.

`benchmarks` is the table of tasks, `problems` what a row of their data asks, `own` draws and grades, `harness` runs
lm-evaluation-harness and inspect-ai; `metrics` has the figures, and `records` what the master keeps of it all.
"""
