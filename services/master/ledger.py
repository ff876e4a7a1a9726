"""The ledger: for every run, at every moment, dispatched = trained + filtered + stale + dead + in flight."""

from __future__ import annotations

from collections.abc import Mapping

from perilune.api.master.v1.master_pb2 import Ledger
from services.master.tables import SampleState as S

IN_FLIGHT = (S.DISPATCHED, S.PARTIAL, S.SCORED)


def balance(
    num_dispatched: int,
    states: Mapping[str, int],
    num_trained_by_versions: int,
    evaluation_dispatched: int,
    evaluation_states: Mapping[str, int],
    *,
    ended: bool,
) -> Ledger:
    """Adds up a run's samples from three sides that are written apart and must agree.

    Args:
        num_dispatched: samples of all groups that were written for training, by the groups.
        states: training samples by state, by the samples.
        num_trained_by_versions: what the trainer said it used, over all committed versions.
        evaluation_dispatched, evaluation_states: the same for held-out samples.
        ended: whether the run is finished, so that nothing may be in flight any more.
    """
    ledger = Ledger(
        dispatched=num_dispatched,
        trained=states.get(S.TRAINED, 0),
        filtered=states.get(S.FILTERED, 0),
        stale=states.get(S.STALE, 0),
        dead=states.get(S.DEAD, 0),
        in_flight=sum(states.get(state, 0) for state in IN_FLIGHT),
        evaluation_dispatched=evaluation_dispatched,
        evaluation_scored=evaluation_states.get(S.EVALUATED, 0),
        evaluation_dead=evaluation_states.get(S.DEAD, 0),
    )
    accounted = ledger.trained + ledger.filtered + ledger.stale + ledger.dead + ledger.in_flight
    evaluation_in_flight = sum(evaluation_states.get(state, 0) for state in IN_FLIGHT)
    evaluation_accounted = ledger.evaluation_scored + ledger.evaluation_dead + evaluation_in_flight
    ledger.balanced = (
        ledger.dispatched == accounted
        and ledger.trained == num_trained_by_versions
        and ledger.evaluation_dispatched == evaluation_accounted
        and not (ended and (ledger.in_flight or evaluation_in_flight))
    )
    return ledger
