"""A logger that fails or is slow neither stops nor slows a run, and is reported once."""

import pickle
import threading
import time

import pytest
from lightning.pytorch.loggers import Logger

from reporting.background import Background


class Kept(Logger):
    """Keeps what it gets."""

    name, version, save_dir = "kept", "1", "here"

    def __init__(self):
        super().__init__()
        self.calls = []
        self.experiment = self

    def log_hyperparams(self, params):
        self.calls.append(params)

    def log_metrics(self, metrics, step=None):
        self.calls.append((step, metrics))

    def note(self, text, *, loud):
        self.calls.append((text, loud))


class Raising(Kept):
    def log_metrics(self, metrics, step=None):
        if step % 2:
            raise ConnectionError("no route\nto host")
        super().log_metrics(metrics, step)


class Sleeping(Kept):
    def log_metrics(self, metrics, step=None):
        self.calls.append(step)
        self.gone = threading.Event()
        self.gone.wait(30)


def test_everything_arrives_in_its_order():
    logger = Background(Kept())
    values = {"a": 0.0}
    logger.log_hyperparams({"lr": 1})
    for step in range(50):
        values["a"] = float(step)
        logger.log_metrics(values, step)
    logger.experiment.note("x", loud=True)
    logger.finalize("success")
    assert logger.inner.calls == [{"lr": 1}, *((step, {"a": float(step)}) for step in range(50)), ("x", True)]
    assert (logger.name, logger.version, logger.save_dir) == ("kept", "1", "here")


def test_it_goes_on_after_a_run_has_ended():
    logger = Background(Kept())
    for step in range(2):
        logger.log_metrics({}, step)
        logger.finalize("success")
    assert logger.inner.calls == [(0, {}), (1, {})]


def test_a_logger_that_raises_is_reported_once_and_still_gets_the_rest(capsys):
    logger = Background(Raising())
    for step in range(10):
        logger.log_metrics({"a": 1.0}, step)
    logger.finalize("success")
    assert [step for step, _ in logger.inner.calls] == [0, 2, 4, 6, 8]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Raising fails (ConnectionError: no route to host); the run goes on" in told


def test_a_logger_that_sleeps_costs_neither_time_nor_memory(capsys):
    logger = Background(Sleeping(), waiting=5, patience=0.3)
    start = time.monotonic()
    for step in range(1000):
        logger.log_metrics({"a": 1.0}, step)
    assert time.monotonic() - start < 1
    assert logger._queue.qsize() <= 5
    logger.finalize("success")
    logger.log_metrics({"a": 1.0}, 1000)
    assert time.monotonic() - start < 2
    told = capsys.readouterr().err.splitlines()
    assert ["too slow" in told[0], "has not finished within" in told[1]] == [True, True]
    assert len(told) == 2
    logger.inner.gone.set()


@pytest.mark.parametrize("measures", [True, False])
def test_what_lightning_logs_is_left_out_on_demand(measures):
    logger = Background(Kept(), measures=measures)
    logger.log_metrics({"a": 1.0}, 1)
    logger.submit(lambda inner: inner.log_metrics({"b": 1.0}, 2))
    logger.wait()
    assert len(logger.inner.calls) == 1 + measures


def test_a_process_of_its_own_can_have_it():
    logger = Background(Kept(), patience=7)
    logger.log_metrics({}, 1)
    logger.wait()
    again = pickle.loads(pickle.dumps(logger))
    assert again.patience == 7
    again.log_metrics({}, 2)
    again.wait()
    assert again.inner.calls[-1] == (2, {})
