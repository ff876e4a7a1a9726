"""The reward service: scores answers, for runs over the bus and for any project over gRPC and HTTP.

Read in this order: `graders/` (a grader is one file and one row of its table), `scoring.py` (one response to one
Score), `processes.py` (where what is expensive or dangerous runs), `deadlines.py` (in time), `servicer.py` (the calls,
with `requests.py`, `batches.py`, `kept.py` and `rescore.py`), `server.py` (all of it as a process).
"""
