"""What waits for a grader that is away is neither given up soon nor delivered as often as the server allows."""

from __future__ import annotations

from perilune.runtime.bus import MAX_DELIVERIES
from services.reward.worker import OUTAGE_S, delay_s


def test_an_outage_of_minutes_is_waited_for_within_the_servers_limit_of_deliveries() -> None:
    waited_s, num_tries = 0.0, 1
    while waited_s < OUTAGE_S:
        waited_s += delay_s(num_tries)
        num_tries += 1
    assert OUTAGE_S >= 300
    assert num_tries < MAX_DELIVERIES
