"""Faults on purpose: planned by a seed, inflicted on one's own deployment, and the ledger checked sample by sample.

Read `plan.py` (which faults), `kinds.py` (what each is), `campaign.py` (how a run is led through them) and `audit.py`
(what is checked); `processes.py` is the deployment that faults are inflicted on, `deployment.py` what another has to
offer.
"""
