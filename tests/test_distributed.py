"""Two processes over gloo, replicated and sharded: losses, figures and predictions of every method are those of one."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.distributed import CASES, SHARDED, SHARDS
from tests.flag_table import as_documented


def start(folder, strategy, rank=None, port=None):
    """Starts a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CAPTION_CACHE": str(folder / f"cache-{strategy}-{rank}")}
    if rank is not None:
        ranks = {"LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": port}
        environment |= {name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "tests.distributed", str(folder), strategy]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finished(processes):
    """Waits for processes; all must have succeeded."""
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()[-3000:]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process saw, by strategy and rank."""
    folder = tmp_path_factory.mktemp("processes")
    finished([start(folder, "single")])

    def of(strategy):
        if not (folder / f"{strategy}-1.json").exists():
            port = free_port()
            finished([start(folder, strategy, rank, port) for rank in range(2)])
        return [json.loads((folder / f"{strategy}-{rank}.json").read_text()) for rank in range(2)]

    return json.loads((folder / "single-0.json").read_text()), of


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", [*map(str, CASES), SHARDS])
def test_two_processes_are_as_one(name, strategy, found):
    alone, of = found
    expected = alone[name]
    both = [rank[name] for rank in of(strategy)]
    case = next(case for case in CASES if str(case) == name.replace(SHARDS, SHARDED))
    with as_documented(case, strategy):
        losses = [loss for pair in zip(*(rank["losses"] for rank in both), strict=True) for loss in pair]
        assert losses == pytest.approx(expected["losses"], rel=2e-4)
        for rank in both:
            assert rank["figures"] == pytest.approx(expected["figures"], rel=1e-5)
            assert rank["captions"] == expected["captions"]
            assert rank["probabilities"].keys() == expected["probabilities"].keys()
            for image, row in rank["probabilities"].items():
                assert row == pytest.approx(expected["probabilities"][image], abs=1e-6)
