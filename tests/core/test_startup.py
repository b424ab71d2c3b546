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
    "matplotlib": "figures; a run that draws none never needs it",
    "datasets": "data from the hub",
    "tensorboard": "a run that is tracked",
    "torch._dynamo.eval_frame": "a network that is compiled; Lightning asks whether one is",
    "torch._inductor": "the same",
    "torch.distributed.fsdp": "sharded training",
    "sympy": "torch's compiler, its export and sharded tensors",
    "triton": "kernels, and counting their operations",
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


LANGUAGE = """
import sys
from core.startup import defer
defer()
import torch
import transformers.models.gpt2.modeling_gpt2
compiler = sys.modules["torch._dynamo"]
print(*[name for name in ("scipy.linalg", "triton", "torch._dynamo.eval_frame") if name in sys.modules])

image = torch.zeros(1, 3, 8, 8, device="meta")
print(tuple(torch.nn.functional.conv2d(image, torch.zeros(2, 3, 3, 3, device="meta")).shape))
try:
    torch.nn.functional.conv2d(image, torch.zeros(2, 4, 3, 3, device="meta"))
except RuntimeError as error:
    print("refused")

def allowed(x):
    return x + 1
marked = torch._dynamo.allow_in_graph(allowed)
constant = torch._dynamo.assume_constant_result(lambda: 2)
later = torch._dynamo.disable(recursive=False)(allowed)
print(marked is allowed, later(torch.ones(1)).item(), "torch._dynamo.eval_frame" in sys.modules)

import scipy.optimize
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import roi_align
print(*scipy.optimize.linear_sum_assignment([[1.0, 0.0], [0.0, 1.0]])[1], callable(scipy.optimize.minimize))
with FlopCounterMode(display=False) as count:
    torch.ones(2, 3) @ torch.ones(3, 4)
print(count.get_total_flops(), torch.utils.flop_counter.__name__)
print(tuple(roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 2).shape))

from torch._dynamo import trace_rules
from torch.fx.experimental.symbolic_shapes import ShapeEnv
print(id(allowed) in trace_rules._allowed_callable_ids, constant._dynamo_marked_constant, torch._dynamo.utils.__name__)
print(torch.compile(lambda x: allowed(x) * constant(), backend="eager", fullgraph=True)(torch.ones(1)).item())
"""


def test_a_language_model_waits_for_no_compiler_and_loses_nothing():
    done = subprocess.run([sys.executable, "-c", LANGUAGE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "",
        "(1, 2, 6, 6)",
        "refused",
        "True 2.0 False",
        "1 0 True",
        f"{2 * 2 * 3 * 4} torch.utils.flop_counter",
        "(1, 1, 2, 2)",
        "True True torch._dynamo.utils",
        "4.0",
    ]
