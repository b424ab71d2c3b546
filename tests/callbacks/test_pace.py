"""Drawing takes a share of a run's time at most, but for its first and last validation."""

from types import SimpleNamespace

import pytest

from callbacks import pace
from callbacks.pace import Pace


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def trainer(epoch=0, fn="fit", step=10, max_steps=-1):
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        current_epoch=epoch,
        max_epochs=50,
        global_step=step,
        max_steps=max_steps,
        is_last_batch=True,
    )


def work(own, clock, seconds, **state):
    """Whether an evaluation is worked on; it takes so long then."""
    if not own.allows(trainer(**state)):
        return False
    for _ in range(4):
        with own.spending():
            clock.now += seconds / 4
    return True


def test_the_share_holds_over_a_long_run(clock):
    own, begun, worked = Pace(0.01), clock.now, []
    own.begin()
    for epoch in range(50):
        clock.now += 60
        worked.append(work(own, clock, 2.0, epoch=epoch))
    assert worked[0]
    assert worked[-1]
    assert 10 <= sum(worked) <= 17
    assert own.spent == 2.0 * sum(worked)
    assert own.spent - 4.0 <= 0.01 * (clock.now - begun), "the first and the last one may come on top"


def test_what_costs_nothing_is_always_done(clock):
    own = Pace(0.01)
    own.begin()
    for epoch in range(20):
        clock.now += 60
        assert work(own, clock, 0.1, epoch=epoch)


def test_the_last_step_counts_as_the_last_epoch_and_tests_are_never_left_out(clock):
    own = Pace(0.01)
    own.begin()
    assert work(own, clock, 5)
    assert not work(own, clock, 5, epoch=2)
    assert work(own, clock, 5, epoch=2, step=30, max_steps=30)
    assert work(own, clock, 5, fn="test")
    assert work(own, clock, 5, epoch=49)
