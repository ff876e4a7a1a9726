from services.rollout.stall import BUSY_SHARE, SLOW_STEP_S, STALL_S, StallDetector


class Machine:
    """Time that passes, and processor time that is used, as the test says."""

    def __init__(self) -> None:
        self.now = self.cpu = 0.0

    def detector(self) -> StallDetector:
        return StallDetector(lambda: self.now, lambda: self.cpu)

    def passes(self, seconds: float, cpu: float = 0.0) -> None:
        self.now += seconds
        self.cpu += cpu


def test_an_engine_is_stuck_when_neither_progress_nor_work_is_seen() -> None:
    machine = Machine()
    engine = machine.detector()
    assert not engine.is_stuck(is_busy=True, progress=5)
    machine.passes(STALL_S - 1)
    assert not engine.is_stuck(is_busy=True, progress=5)
    machine.passes(1)
    assert engine.is_stuck(is_busy=True, progress=5)
    assert not engine.is_stuck(is_busy=True, progress=6)


def test_an_engine_that_waits_is_not_stuck() -> None:
    machine = Machine()
    engine = machine.detector()
    machine.passes(10 * STALL_S)
    assert not engine.is_stuck(is_busy=False, progress=0)
    machine.passes(1)
    assert not engine.is_stuck(is_busy=True, progress=0)


def test_a_slow_step_uses_the_processor_and_ends_some_day() -> None:
    machine = Machine()
    engine = machine.detector()
    engine.is_stuck(is_busy=True, progress=0)
    machine.passes(2 * STALL_S, cpu=2 * STALL_S * BUSY_SHARE)
    assert not engine.is_stuck(is_busy=True, progress=0)
    machine.passes(SLOW_STEP_S, cpu=SLOW_STEP_S)
    assert engine.is_stuck(is_busy=True, progress=0)
