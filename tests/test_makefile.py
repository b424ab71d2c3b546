import os
import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "Makefile").read_text()
INTERNAL = {"python-is-usable"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_lists_every_target():
    # the tests may have been started by make, which would announce itself
    alone = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(["make", "help"], cwd=ROOT, env=alone, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)", TEXT, re.MULTILINE)[1].split()
    assert {line.split()[0] for line in shown.splitlines()} == set(phony) - INTERNAL


def test_what_ci_calls_exists():
    workflows = [path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    called = re.findall(
        r"^(?:make|.* run: make) (.*)", "\n".join([(ROOT / ".ci" / "run").read_text(), *workflows]), re.M
    )
    assert {"smoke", "test"} <= {name for names in called for name in names.split()}
    for name in {name for names in called for name in names.split()}:
        assert re.search(rf"^{name}:", TEXT, re.MULTILINE), name
