"""Runs of two processes, of which either is killed, end as runs that were left alone: every method."""

import pytest

from tests.faults.chains import chain
from tests.faults.house import House
from tests.faults.injection import Fault
from tests.faults.methods import TRAINED

STREAMED = "attention_rnn"
"""The method that also learns from a stream of shards, and with its weights divided."""
MOST = 8
"""Batches of each process: three an epoch, so this falls into the third."""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        yield House(tmp_path_factory.mktemp("ranks"), seed=1)


@pytest.fixture(autouse=True)
def _cache(house, monkeypatch):
    monkeypatch.setenv("CAPTION_CACHE", str(house.folder / "cache"))


def survives(house, twin, setting, rank):
    """Kills a process in the third epoch, right after a step."""
    result = chain(house, f"{twin} {setting} {rank}", twin, setting, [Fault("batch end", MOST, "SIGKILL", rank=rank)])
    assert not result.wrong, result
    assert result.faults == 1, result


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("twin", TRAINED)
def test_either_of_two_processes_may_be_killed(house, twin, rank):
    survives(house, twin, "two processes", rank)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("setting", ["two processes on shards", "two processes in parts"])
def test_a_stream_of_shards_and_divided_weights_are_resumed(house, setting, rank):
    survives(house, STREAMED, setting, rank)
