"""Faults that lost something once, and some of every kind; `python -m tests.faults` draws others."""

import pickle

import pytest

from tests.faults import cases
from tests.faults.chains import chain
from tests.faults.house import House
from tests.faults.injection import Fault
from tests.faults.readers import PICKLE
from tests.hostile_readers import Reader

SMALL = "ucm_text_autoencoder"
CHAINS = {
    # saved at the first step, before its row was written; then killed before the next checkpoint
    "a row that only the checkpoint has": (
        (SMALL, "weight averaging"),
        [Fault("batch start", 1, "SIGINT"), Fault("validation start", 1, "SIGKILL")],
    ),
    # rows are logged every fourth step, so a checkpoint may follow before any
    "a row that only the checkpoint before has": (
        (SMALL, "rare rows"),
        [Fault("batch start", 4, "SIGTERM"), Fault("behind rename last.ckpt", 1, "SIGKILL")],
    ),
    # a checkpoint at the last batch of the run would have no step after it that logs its row
    "death at the last batch": (
        (SMALL, "within epochs"),
        [Fault("batch end, behind all", 15, "SIGKILL")],
    ),
    # early stopping has decided, and the last checkpoint knows; the run must not go on for another epoch
    "a signal behind the decision to stop": (
        ("emotion_transfer", "early stopping"),
        [Fault("epoch end, behind all", 2, "SIGINT")],
    ),
    # Lightning enters a finished epoch once more when steps are limited
    "death between two epochs of a run of so many steps": (
        (SMALL, "max steps"),
        [Fault("epoch start", 2, "SIGKILL")],
    ),
    "half-written files of a beginning": (
        (SMALL, "plain"),
        [Fault("open config.yaml.tmp", 1, "SIGKILL"), Fault("write best.ckpt.tmp", 3, "SIGKILL")],
    ),
    "half a row, and a signal when all is done": (
        (SMALL, "plain"),
        [Fault("write metrics.csv", 7, "SIGKILL"), Fault("behind unlink .owner", 1, "SIGUSR1")],
    ),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        yield House(tmp_path_factory.mktemp("faults"), seed=1)


@pytest.fixture(autouse=True)
def _cache(house, monkeypatch):
    monkeypatch.setenv("CAPTION_CACHE", str(house.folder / "cache"))


@pytest.mark.parametrize("name", CHAINS)
def test_a_run_ends_as_if_it_had_been_left_alone(house, name):
    (twin, setting), faults = CHAINS[name]
    result = chain(house, name, twin, setting, faults)
    assert not result.wrong, result
    assert result.faults == len(faults), result


@pytest.mark.slow
@pytest.mark.parametrize("group", ["evaluation", "pair", "damage"])
def test_one_of_each_kind(house, group):
    variant = "fit+resume" if group == "pair" else "file"
    result = cases.run_case(house, f"{group}:{SMALL}:{variant}:1")
    assert not result.wrong, result


def test_the_same_seed_draws_the_same_faults(house):
    name = f"write:{SMALL}:plain:1"
    draws = [[str(fault) for fault in house.faults(name, "write", SMALL, "plain", 9)] for _ in range(2)]
    assert draws[0] == draws[1]
    other = House.__new__(House)
    other.seed, other.places, other.alone = 2, house.places, lambda *_: None
    assert [str(fault) for fault in other.faults(name, "write", SMALL, "plain", 9)] != draws[0]


def test_a_fault_that_loses_something_is_noticed(house, monkeypatch):
    """The harness itself: a run whose figures are kept in memory for long loses rows when it is killed."""
    monkeypatch.setattr("reporting.loggers.CSVFile.resume_at", lambda *_: None)
    result = chain(house, "noticed", SMALL, "plain", [Fault("before step", 8, "SIGKILL")])
    assert any("doubled" in line or "others" in line for line in result.wrong), result


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("rank", [0, 1])
def test_either_of_two_processes_may_end(house, rank, kind):
    name = f"{kind} of rank {rank}"
    result = chain(house, name, SMALL, "two processes", [Fault("batch end", 7, kind, rank=rank)])
    assert not result.wrong, result
    assert result.faults == 1, result


def test_executed_code_is_noticed(house, monkeypatch):
    """The harness itself: a reader that unpickles, and a command that trusts every configuration."""
    unpickling = Reader(
        "x", "x", lambda folder: (folder / "x").touch(), lambda folder: pickle.load((folder / "x").open("rb"))
    )
    monkeypatch.setattr("tests.faults.readers.reader", lambda _: unpickling)
    result = cases.run_case(house, f"reader:x:{PICKLE}:1")
    assert "its code was executed" in result.wrong, result
    monkeypatch.setattr("tests.faults.strangers.READERS", ["test"])
    monkeypatch.setattr("commands.trainer.config_files.check_trusted", lambda *_: None)
    result = cases.run_case(house, f"stranger:{SMALL}:callback:1")
    assert "code of a stranger was executed" in result.wrong, result
