"""The reward service: scores answers, for runs over the bus and for any project over gRPC.

Read in this order: `graders/` (a grader is one file and one row of its table), `scoring.py` (one response to one
Score), `processes.py` (where what is expensive or dangerous runs), `server.py` (the bus worker and the RPCs).
"""
