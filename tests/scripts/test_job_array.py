"""The script of job arrays gives each task a shard of its own, all of them together the whole."""

import os
import shutil
import subprocess

import pytest

from core.shards import Shard
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")
WORDS = ["caption", "--ckpt", "RUN", "my pictures/", "--out", "captions"]


def task(tmp_path, number, **variables):
    """What a task would call."""
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    slurm = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items() if name != "SHARDS"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") and name != "SHARDS"}
    own |= {"PYTHON": str(python), "SLURM_SUBMIT_DIR": str(ROOT), **slurm}
    own |= {"SLURM_ARRAY_TASK_ID": str(number)} if number else {}
    own |= {"SHARDS": str(variables["SHARDS"])} if "SHARDS" in variables else {}
    script = ROOT / "scripts" / "job_array.sh"
    return subprocess.run(["bash", script, *WORDS], env=own, capture_output=True, text=True, check=False)


def shard(done):
    assert done.returncode == 0, done.stderr
    *words, shard = done.stdout.splitlines()
    assert words == ["cli.py", *WORDS, "--shard"]
    return Shard.parse(shard)


def test_tasks_are_all_shards(tmp_path):
    found = [shard(task(tmp_path, number, COUNT=3, MIN=1, MAX=3)) for number in (1, 2, 3)]
    rows = [row for one in found for row in one.rows(100, 8)]
    assert rows == list(range(100))


def test_some_tasks_again_need_the_number_of_shards(tmp_path):
    done = task(tmp_path, 7, COUNT=2, MIN=3, MAX=7)
    assert done.returncode != 0
    assert "give the number of shards" in done.stderr
    assert shard(task(tmp_path, 7, COUNT=2, MIN=3, MAX=7, SHARDS=16)) == Shard(7, 16)


def test_it_is_for_arrays_only(tmp_path):
    done = task(tmp_path, None)
    assert done.returncode != 0
    assert "--array=1-N" in done.stderr
