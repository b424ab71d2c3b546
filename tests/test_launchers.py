"""Runs of two processes that torchrun and SLURM start: one folder, the bits of a run that starts both itself."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.test_resume import compare, last, read_rows
from tests.tiny import make_config, make_folder

SRUN = """#!/bin/bash
# two tasks of one machine, as srun starts them
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" &
    pids+=($!)
done
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit $code
"""
BOTH = ["--trainer.devices=2", "--trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launchers")
    path = make_config(folder / "tiny.yaml", make_folder(folder / "data"), epochs=2)
    path.write_text(path.read_text().replace("tests.tiny.KillAfter", "tests.test_signals.SignalAt"))
    return path


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """A run that starts its processes itself."""
    run = tmp_path_factory.mktemp("alone") / "run"
    call([sys.executable, "cli.py", "fit", *words(config, run), *BOTH])
    return run


def words(config, run):
    return ["--config", str(config), "--run_dir", str(run), "--wandb=off"]


def call(command, code=0, **environment):
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    own |= {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=own, timeout=300)
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_torchrun_trains_and_tests_in_one_folder(config, alone, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "cli.py"]
    run = tmp_path / "run"
    call([*torchrun, "fit", *words(config, run), *BOTH])
    compare(last(alone), last(run))
    assert read_rows(run) == read_rows(alone)
    call([*torchrun, "validate", "--ckpt_path", str(run), *BOTH])
    assert [path.name for path in (run / "eval").iterdir()] == ["validate"]


@pytest.mark.slow
def test_a_warned_job_of_two_tasks_is_queued_once_and_goes_on_in_its_folder(config, alone, tmp_path):
    (tools := tmp_path / "bin").mkdir()
    log = tmp_path / "scontrol.log"
    for name, text in {"srun": SRUN, "scontrol": f'#!/bin/sh\necho "$@" >> {log}\n'}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    slurm = {"JOB_ID": "1234", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "JOB_NAME": "x"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(ROOT)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "SIGNAL_NAME": "SIGUSR1"}
    run = tmp_path / "run"
    job = ["bash", "scripts/train_nodes.sh", *words(config, run), "--trainer.strategy=ddp"]
    done = call(job, 128 + signal.SIGUSR1, SIGNAL_AT="5", **environment)
    assert done.stderr.count("the job is queued again") == 1
    assert log.read_text() == "requeue 1234\n"
    call(job, SLURM_RESTART_COUNT="1", **environment)
    compare(last(alone), last(run))
    assert read_rows(run) == read_rows(alone)
