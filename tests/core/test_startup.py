"""What a command imports before it has anything to do."""

import subprocess
import sys

from tests.conftest import ROOT

HEAVY = {
    "scipy": "baselines of classes, statistics",
    "sklearn": "baselines of classes, projections of codes",
    "timm": "encoders by its names, after which it imports wandb",
    "torchmetrics.functional": "Lightning needs the base class only",
    "torchvision": "encoders by its names",
    "transformers": "language models and tokenizers",
    "wandb": "a run that is tracked",
    "pandas": "tables",
    "datasets": "data from the hub",
    "tensorboard": "a run that is tracked",
}
"""Packages that take from .2 to 2 seconds, and what has to be asked for before they are imported."""
PROGRAM = """
import contextlib, io, sys
import cli
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    cli.main(["fit", "--help"])
assert "--trainer.max_epochs" in text.getvalue()
print(*[name for name in sys.argv[1:] if name in sys.modules])
import torchmetrics
print(torchmetrics.Accuracy.__module__, torchmetrics.functional.__name__, hasattr(torchmetrics, "no_such_metric"))
"""


def test_what_takes_long_is_imported_by_those_who_use_it():
    words = [sys.executable, "-c", PROGRAM, *HEAVY]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    imported, metrics = done.stdout.splitlines()
    assert not imported.split()
    assert metrics == "torchmetrics.classification.accuracy torchmetrics.functional False", "nothing is lost by waiting"
