"""The rollout service: turns prompts into token sequences, for every run it is assigned.

Read in this order: `engines/base.py` (what an engine is), `engines/torch_engine.py` (the embedded one), `subscriber.py`
(how weights arrive), `worker.py` (one run: prompts in, trajectories out), `server.py` (the runs together, and status).
"""
