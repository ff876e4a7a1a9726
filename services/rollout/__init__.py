"""The rollout service: turns prompts into token sequences, for every run it is assigned.

Read in this order: `engines/base.py` (what an engine is), `engines/embedded/` (ours), `rollout.py`
(one sample on its way), `worker.py` (a run: weights and prompts in, trajectories out), `server.py` (all runs together).
`engines/process/` is vLLM and SGLang, and `openai/` the endpoint for outside agents.
"""
