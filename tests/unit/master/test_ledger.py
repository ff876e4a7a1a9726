from services.master.ledger import balance
from services.master.tables import SampleState as S


def test_every_state_is_counted_once() -> None:
    states = {S.DISPATCHED: 1, S.SCORED: 2, S.TRAINED: 16, S.FILTERED: 4, S.STALE: 3, S.DEAD: 6}
    ledger = balance(32, states, 16, 10, {S.EVALUATED: 9, S.DEAD: 1}, ended=False)
    assert (ledger.trained, ledger.filtered, ledger.stale, ledger.dead, ledger.in_flight) == (16, 4, 3, 6, 3)
    assert ledger.balanced


def test_a_lost_sample_shows() -> None:
    assert not balance(32, {S.TRAINED: 31}, 31, 0, {}, ended=False).balanced


def test_a_sample_trained_twice_shows() -> None:
    """The trainer says that it used one more than the buffer gave."""
    assert not balance(32, {S.TRAINED: 32}, 33, 0, {}, ended=False).balanced


def test_nothing_may_be_in_flight_at_the_end() -> None:
    states = {S.TRAINED: 30, S.SCORED: 2}
    assert balance(32, states, 30, 0, {}, ended=False).balanced
    assert not balance(32, states, 30, 0, {}, ended=True).balanced


def test_a_lost_heldout_sample_shows() -> None:
    assert not balance(0, {}, 0, 10, {S.EVALUATED: 9}, ended=False).balanced
