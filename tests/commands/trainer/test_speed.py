"""Precision and compilation: what a user types, and what is set."""

import pytest
import torch

import cli
from commands.trainer.speed import set_matmul_precision
from networks.layers.compilation import compile_blocks
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder


@pytest.fixture(autouse=True)
def _own_precision():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(
    ("given", "meant"),
    [("fp16", "16-mixed"), ("half", "16-mixed"), ("bfloat16", "bf16-mixed"), ("FP32", "32-true"), ("tf32", "matmul")],
)
def test_a_wrong_precision_gets_the_right_name(monkeypatch, capsys, tmp_path, given, meant):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data"))
    assert cli.main(["fit", "--config", str(config), f"--trainer.precision={given}"]) == 1
    lines = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(lines) == 1
    assert f"trainer.precision is '{given}': expected 16-mixed, bf16-mixed, 32-true or 64-true; did you" in lines[0]
    assert meant in lines[0].partition("did you")[2]


def test_a_precision_that_nobody_means(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data"))
    assert cli.main(["fit", "--config", str(config), "--trainer.precision=7"]) == 1
    message = capsys.readouterr().err
    assert "trainer.precision is '7': expected 16-mixed" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(("name", "tf32"), [("highest", False), ("high", True), ("medium", True)])
def test_products_of_float32(name, tf32):
    set_matmul_precision(name)
    assert torch.get_float32_matmul_precision() == name
    assert torch.backends.cudnn.allow_tf32 is tf32


def test_the_command_line_sets_it_and_compiles(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    compiled = []
    monkeypatch.setattr("commands.trainer.speed.compile_blocks", lambda model: compiled.append(model) or 0)
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data"))
    options = ["--matmul_precision=high", "--compile=true", "--trainer.fast_dev_run=true"]
    with pytest.warns(UserWarning, match="--compile=true has no effect"):
        assert cli.main(["fit", "--config", str(config), *options]) == 0
    assert torch.get_float32_matmul_precision() == "high"
    assert len(compiled) == 1


def test_compiled_blocks_compute_the_same():
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ModuleList([block, torch.nn.Linear(4, 4)])[0])
    stack = torch.nn.ModuleList([block, torch.nn.GRU(4, 4), torch.nn.Linear(4, 4)])
    names, inputs = set(stack.state_dict()), torch.randn(3, 4)
    expected = network(inputs)
    assert compile_blocks(stack, backend="eager") == 1
    assert set(stack.state_dict()) == names
    torch.testing.assert_close(network(inputs), expected)
