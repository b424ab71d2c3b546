"""The GPU report: what it measures, what it promises, and what it does without a GPU."""

import pytest
import torch

from lightning_modules import METHODS
from scripts.gpu_report import __main__ as report
from scripts.gpu_report.checks import LAST, Row, broken_promises
from scripts.gpu_report.measure import Arm
from scripts.gpu_report.methods import NAMES, make_data, make_module, published, settings_of
from scripts.gpu_report.methods import Size as DataSize
from scripts.gpu_report.page import page


@pytest.fixture(autouse=True)
def _own_precision():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def arm(*losses, memory=10.0, overflows=0):
    return Arm(list(losses), [0.1] * len(losses), [0.01] * len(losses), 8, 40, memory, overflows)


def row(**arms):
    made = {"cpu": arm(2.0, 1.9, 1.8), "fp32": arm(2.0, 1.9, 1.8, 1.7), "bf16": arm(2.0, 1.9, 1.81, 1.7)}
    made |= {"checkpointing": arm(2.0, 1.9, 1.8, 1.7, memory=4.0), "loader": arm(2.0, 1.9, 1.8)}
    return Row("attention_rnn", 1_000_000, 8, {**made, **arms}, 5.0, ["captioner.decoder"])


def test_promises_that_are_kept():
    assert list(broken_promises(row())) == []


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"fp32": arm(2.1, 1.9, 1.8)}, "loss of step 1 is"),
        ({"fp32": arm(2.0, 1.9, 1.8 * (1 + 2 * LAST))}, "loss of step 3 is"),
        ({"bf16": arm(2.0, 1.9, 2.8)}, "bf16: loss of step 3"),
        ({"fp16": arm(2.0, float("nan"), 1.8)}, "fp16: a loss is not finite"),
        ({"fp16": arm(2.0, 1.9, 1.8, overflows=3)}, "fp16: 3 steps overflowed"),
        ({"checkpointing": arm(2.0, 1.9, 1.8)}, "gradient checkpointing takes 10 MiB instead of 10"),
    ],
)
def test_promises_that_are_broken(arms, said):
    assert any(said in text for text in broken_promises(row(**arms)))


def test_what_recomputes_nothing_promises_no_memory():
    made = row(checkpointing=arm(2.0, 1.9, 1.8))
    made.recomputed = []
    assert list(broken_promises(made)) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(capsys, tmp_path):
    assert report.main(["--out", str(tmp_path / "page.md")]) == 2
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not (tmp_path / "page.md").exists()


def test_every_method_has_its_published_size():
    assert {settings_of(name, small=False)[0] for name in NAMES} == set(METHODS.values())
    sizes = {"dual_transfer": 50_259, "attention_rnn": 10_000}
    for name, vocabulary in sizes.items():
        assert len(published(name)) == 2
        data = make_data(name, DataSize(2, 2, 0), small=True)
        options = {"image_encoder": "small-conv", "feature_dim": None}
        options = {key: value for key, value in options.items() if key in settings_of(name, small=False)[0].options()}
        assert make_module(name, data, False, **options).vocab_size == vocabulary


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_sizes_can_be_built(name):
    data = make_data(name, DataSize(2, 2, 0), small=False)
    data._stores = {}
    if data.feature_source:
        pytest.skip("the features of a large CNN would be computed")
    parameters = sum(value.numel() for value in make_module(name, data, small=False).parameters())
    assert parameters > 5e6


def test_a_page_of_everything(tmp_path):
    text = page(
        [row(fp16=arm(2.0, 1.9, 1.8)), row()], ["a note"], ["a promise"], device="cpu", command="make gpu-report"
    )
    assert "- **broken**: a promise" in text
    assert "made without a GPU" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in tables}
    assert len(widths) <= 3
    assert "a note" in text


def test_the_same_code_runs_on_a_cpu(tmp_path, capsys):
    options = ["--device", "cpu", "--small", "--steps", "3", "--skip_runs", "--methods", "ucm_text_autoencoder"]
    assert report.main([*options, "--out", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "| ucm_text_autoencoder |" in text
    assert "All were kept." in text


def test_a_method_that_fails_is_a_broken_promise(monkeypatch, tmp_path, capsys):
    def fails(name, plan):
        raise RuntimeError("no kernel\nand more")

    monkeypatch.setattr(report, "measure", fails)
    options = ["--device", "cpu", "--small", "--skip_runs", "--methods", "dual_transfer"]
    assert report.main([*options, "--out", str(tmp_path / "page.md")]) == 1
    assert "- **broken**: dual_transfer: RuntimeError: no kernel" in (tmp_path / "page.md").read_text()
    assert "broken: dual_transfer" in capsys.readouterr().out


@pytest.mark.slow
def test_all_of_it_on_a_cpu(tmp_path):
    """All methods, and a run that is killed and resumed."""
    assert report.main(["--device", "cpu", "--small", "--out", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert all(f"| {name} |" in text for name in NAMES)
    assert "killed with SIGKILL and resumed: weights differ by 0.0e+00" in text
