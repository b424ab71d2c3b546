"""The script that trains on the machines of a cluster starts a process for each GPU, with the same words."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")
WORDS = ["--config", "my experiment.yaml", "--wandb=off"]


def started(tmp_path, **variables):
    """What the script would give to srun."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    own |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python3", "SLURM_SUBMIT_DIR": str(ROOT)}
    own |= {f"SLURM_{name}": str(value) for name, value in variables.items()}
    script = ROOT / "scripts" / "train_nodes.sh"
    return subprocess.run(["bash", script, *WORDS], env=own, capture_output=True, text=True, check=False)


def test_a_process_for_each_gpu(tmp_path):
    done = started(tmp_path, JOB_ID=7, NNODES=2, NTASKS_PER_NODE=4)
    assert done.returncode == 0, done.stderr
    counts = ["--trainer.num_nodes=2", "--trainer.devices=4"]
    assert done.stdout.splitlines() == ["python3", "cli.py", "fit", *WORDS, *counts]


@pytest.mark.parametrize(
    ("variables", "message"),
    [({}, "submit this script with sbatch"), ({"JOB_ID": 7, "NNODES": 2}, "give --ntasks-per-node")],
)
def test_what_is_missing_is_said(tmp_path, variables, message):
    done = started(tmp_path, **variables)
    assert done.returncode != 0
    assert message in done.stderr
