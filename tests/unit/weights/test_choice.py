"""Whole or delta: whatever is served sooner by the measured rates, and never a delta that is slower than the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perilune.weights.choice import MEASURED_BYTES, REMEASURE_EVERY, Measured, Rates, choose

QWEN = 3_090_000_000  # bytes of a version
MB = 1e6


def test_a_slow_link_gets_a_delta_and_a_fast_one_the_whole() -> None:
    encoder = {"coding": 600 * MB, "delta_share": 0.01}
    assert choose(QWEN, Rates(link=125 * MB, **encoder)).is_delta  # 10.5 s against 24.7 s
    on_one_machine = choose(QWEN, Rates(link=1_900 * MB, **encoder))
    assert not on_one_machine.is_delta
    assert on_one_machine.reason == "a delta takes 10.32 s, the whole 1.63 s (link 1900.0 MB/s, encoder 600.0 MB/s)"


def test_a_faster_encoder_changes_the_choice() -> None:
    link = {"link": 1_900 * MB, "delta_share": 0.01}
    assert not choose(QWEN, Rates(coding=3_000 * MB, **link)).is_delta
    assert choose(QWEN, Rates(coding=10_000 * MB, **link)).is_delta


def test_what_is_not_measured_is_measured_by_a_delta() -> None:
    for known in (Rates(), Rates(link=1.0), Rates(coding=1.0, delta_share=0.5)):
        assert choose(QWEN, known).is_delta


rates = st.floats(1e3, 1e12)


@given(rates, rates, st.floats(0, 1))
def test_no_delta_is_slower_than_the_whole(link: float, coding: float, share: float) -> None:
    whole_s, delta_s = QWEN / link, 2 * QWEN / coding + share * QWEN / link
    assert choose(QWEN, Rates(link, coding, share)).is_delta == (delta_s < whole_s)


def test_the_slowest_of_the_newest_sends_counts_and_small_ones_do_not() -> None:
    measured = Measured()
    measured.sent(MEASURED_BYTES - 1, 100.0)
    assert measured.rates.link is None
    for seconds in (1.0, 4.0, 2.0):
        measured.sent(2 * MEASURED_BYTES, seconds)
    assert measured.rates.link == MEASURED_BYTES / 2
    for _ in range(8):
        measured.sent(2 * MEASURED_BYTES, 1.0)
    assert measured.rates.link == 2 * MEASURED_BYTES


def test_a_delta_is_made_again_now_and_then() -> None:
    measured = Measured()
    measured.sent(QWEN, 1.0)
    measured.encoded(QWEN, None, 5.0)
    assert measured.rates.delta_share == 1.0
    chosen = [measured.choose(QWEN).is_delta for _ in range(REMEASURE_EVERY + 1)]
    assert chosen == [False] * REMEASURE_EVERY + [True]
