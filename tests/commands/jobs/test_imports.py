"""`merge` needs none of the libraries that take seconds to import."""

import subprocess
import sys

from tests.conftest import ROOT

CODE = """
import sys, cli
code = cli.main(sys.argv[1:])
print([name for name in ("torch", "lightning", "transformers") if name in sys.modules], code)
"""


def test_merge_starts_without_torch(tmp_path):
    words = [sys.executable, "-c", CODE, "merge", str(tmp_path), "--verify"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"
    assert "holds no job" in done.stderr
