"""The reward service: scores answers, for runs over the bus and for any project over gRPC and HTTP.

Read in this order: `graders/` (a grader is one file and one row of its table), `scoring.py` (one response to one
Score, in time), `processes.py` (where what is expensive or dangerous runs), `servicer.py` (the calls, with
`requests.py`, `batches.py`, `answer_store.py` and `rescore.py`), `worker.py` (what comes over the bus), `server.py`
(all of it as a process).
"""
