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
    "torch._dynamo.eval_frame": "a network that is compiled; Lightning asks whether one is",
    "torch._inductor": "the same",
    "torch.distributed.fsdp": "sharded training",
    "sympy": "torch's compiler, its export and sharded tensors",
}
"""Packages that take from .2 to 2 seconds, and what has to be asked for before they are imported."""
PROGRAM = """
import contextlib, io, sys
import cli
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    cli.main(["fit", "--help"])
assert "--trainer.max_epochs" in text.getvalue()
print(*[name for name in sys.argv[1:] if name in sys.modules])
import torch
from lightning.fabric.wrappers import _unwrap_compiled
layer = torch.nn.Linear(2, 1)
plain = _unwrap_compiled(layer)[1] is None
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
print(plain, layer.weight.grad is None, "torch._dynamo.eval_frame" in sys.modules)
import torchmetrics
print(torchmetrics.Accuracy.__module__, torchmetrics.functional.__name__, hasattr(torchmetrics, "no_such_metric"))
compiled = torch.compile(layer, backend="eager")
print(_unwrap_compiled(compiled)[0] is layer, torch.allclose(compiled(torch.ones(1, 2)), layer(torch.ones(1, 2))))
compiled(torch.ones(1, 2)).sum().backward()
optimizer.step()
import torch._dynamo.config
print(torch._dynamo.OptimizedModule.__module__, hasattr(torch._dynamo, "no_such_name"))
from torchmetrics.utilities.plot import plot_single_or_multi_val
figure, _ = torchmetrics.MeanMetric().plot(torch.tensor(1.0))
print(type(figure).__name__)
"""


def test_what_takes_long_is_imported_by_those_who_use_it():
    words = [sys.executable, "-c", PROGRAM, *HEAVY]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    imported, before, metrics, compiled, compiler, plot = done.stdout.splitlines()
    assert not imported.split()
    assert metrics == "torchmetrics.classification.accuracy torchmetrics.functional False", "nothing is lost by waiting"
    assert before == "True True False", "an optimiser's steps need no compiler"
    assert compiled == "True True", "a compiled network is known as one"
    assert compiler == "torch._dynamo.eval_frame False"
    assert plot == "Figure"
