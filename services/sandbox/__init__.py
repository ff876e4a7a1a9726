"""The sandbox: untrusted programs, fast, and nothing gets out.

Read in this order: `job.py` (the nouns), `jail/` (where a job runs), `languages/` (what a program needs), `builds.py`
(compiled once), `judge.py` with `harness/` (a program against its tests), `sessions.py`
(interpreters that stay), `server.py` (the RPCs).
"""
