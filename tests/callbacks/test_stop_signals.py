"""The first signal waits for a step that saves, the second for nothing."""

import os
import signal
from types import SimpleNamespace

import pytest

from callbacks.stop_signals import StopSignals
from core.errors import Interrupted

TRAINER = SimpleNamespace(fast_dev_run=False)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_second_signal_stops_at_once():
    signals = StopSignals()
    with signals.installed():
        signals.on_train_start(TRAINER, None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM, "remembered until the step is done"
        with pytest.raises(Interrupted) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
    assert stop.value.code == 128 + signal.SIGHUP


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_outside_of_training_the_first_one_does():
    with StopSignals().installed(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
