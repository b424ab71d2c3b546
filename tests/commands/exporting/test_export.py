"""An exported model gives what its checkpoint gives, says nothing about this machine, and damage is one line."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import cli
from commands.export import write_folder
from core.checkpoints import read_checkpoint
from core.exported import CONFIG, TOKENIZER, WEIGHTS, digest
from lightning_modules.captioning import CaptioningModule
from lightning_modules.loading import load_module
from reporting.markdown import code, plain, table
from tests.commands.made_runs import make_data, make_run, right
from tests.nasty import NASTY
from tests.twins import batch_maker, cases, saved_and_loaded

CASES = [case for case in cases() if not case.variant]


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    with batch_maker(tmp_path_factory.mktemp("cache"), 2) as make:
        yield make


def checkpoint_of(case, batches, folder):
    data, batch = batches(case)
    module = case.make(data)
    if isinstance(module, CaptioningModule):
        module.inference["decoding"] = asdict(module.decoding("test"))
    saved_and_loaded(module, folder / "model.ckpt")
    return folder / "model.ckpt", batch


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_method_comes_back_with_the_same_bits(case, batches, tmp_path):
    file, _ = checkpoint_of(case, batches, tmp_path)
    write_folder(file, None, tmp_path / "out", name="m", licence="mit")
    one, other = read_checkpoint(file), read_checkpoint(tmp_path / "out")
    assert other["inference"] == json.loads(json.dumps(one["inference"]))
    assert list(one["state_dict"]) == list(other["state_dict"]) or set(one["state_dict"]) == set(other["state_dict"])
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    loaded, exported = load_module(file), load_module(tmp_path / "out")
    assert type(loaded) is type(exported)
    assert dict(loaded.hparams) == dict(exported.hparams)


@pytest.fixture
def run(batches, tmp_path):
    case = next(case for case in CASES if case.twin == "dual_transfer")
    return checkpoint_of(case, batches, tmp_path)[0]


def export(run, out, *options):
    return cli.main(["export", str(run), "--out", str(out), *options])


def test_paths_of_this_machine_stay_here(run, tmp_path):
    checkpoint = torch.load(run, weights_only=True)
    checkpoint["hyper_parameters"]["language_weights"] = "/home/somebody/weights"
    torch.save(checkpoint, run)
    assert export(run, tmp_path / "out") == 0
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert b"somebody" not in content
        assert str(tmp_path).encode() not in content
    assert read_checkpoint(tmp_path / "out")["hyper_parameters"]["language_weights"] == "weights"


def test_what_is_there_is_not_overwritten(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert export(run, tmp_path / "out") == 0  # an empty folder may be filled
    assert export(run, tmp_path / "out") == 1
    assert "holds something already: remove it, or give another --out" in capsys.readouterr().err
    assert export(run, tmp_path / "new", "--license", "a\nb: c") == 1
    assert "expected an identifier such as mit" in capsys.readouterr().err
    assert export(tmp_path / "nothing", tmp_path / "new") == 1
    assert not (tmp_path / "new").exists()


def test_a_failing_write_leaves_nothing(run, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fails)
    assert export(run, tmp_path / "out") == 1
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name or "export" in path.name] == []


def damaged(folder, how):
    config = json.loads((folder / CONFIG).read_text())
    if how == "flipped byte":
        content = bytearray((folder / WEIGHTS).read_bytes())
        content[-1] ^= 1
        (folder / WEIGHTS).write_bytes(content)
    elif how == "no safetensors":
        (folder / WEIGHTS).write_bytes(b"\xff" * 100)
        config["sha256"] = digest(folder / WEIGHTS)
    elif how == "other format":
        config["format"] = 99
    elif how == "no entry":
        del config["inference"]
    elif how == "foreign method":
        config["inference"]["method"] = "os.system"
    elif how == "no object":
        config["inference"] = [1]
    elif how == "foreign option":
        config["hyper_parameters"]["surprise"] = 1
    elif how == "no tokenizer":
        (folder / TOKENIZER).write_text("[1, 2")
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("flipped byte", "is not what was exported, its SHA-256 differs"),
        ("no safetensors", "cannot be read as the weights of a model"),
        ("other format", "format is 99, this version reads 1"),
        ("no entry", "has no entry 'inference'"),
        ("foreign method", "is of method 'os.system'"),
        ("no object", "inference and hyper_parameters must be objects"),
        ("foreign option", "its setting 'surprise' is not known here"),
        ("no tokenizer", "tokenizer.json"),
    ],
)
def test_damage_takes_one_line(run, tmp_path, how, said, capsys):
    out = tmp_path / "out"
    assert export(run, out) == 0
    damaged(out, how)
    capsys.readouterr()
    assert cli.main(["caption", "--ckpt", str(out), "docs/scene.png"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", NASTY)
def test_texts_of_the_card_are_shown_as_they_are(text):
    shown = plain(text)
    assert not re.search(r"(?<!\\)[`*_\[\]<|]", shown.replace("\\\\", ""))
    assert "\n" not in shown
    assert "\n" not in code(text)
    assert all(line.count("|") - line.count("\\|") == 3 for line in table(["a", "b"], [[text, text]]))


def test_the_card_has_figures_beside_baselines(tmp_path, batches, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path(make_run(make_data(tmp_path / "data"), "one", right))
    (run / "checkpoints").mkdir()
    case = next(case for case in CASES if case.twin == "dual_transfer")
    checkpoint_of(case, batches, run / "checkpoints")[0].rename(run / "checkpoints" / "best.ckpt")
    assert export(run, tmp_path / "out", "--license=mit", "--name=My model") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: captioners\nlicense: mit\n")
    assert "# My model" in card
    assert "| this model |" in card
    assert "| constant caption |" in card
    assert "0\\.500" in card  # CIDEr-D of the run's metrics.json
    assert 'load_captioner("FOLDER")' in card


def test_a_repository_of_the_hub_is_read_like_a_folder(hub, run, tmp_path, capsys):
    assert export(run, hub.root / "somebody" / "model") == 0
    capsys.readouterr()
    for ckpt in (str(run), "somebody/model"):
        assert cli.main(["caption", "--ckpt", ckpt, "docs/scene.png", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second
    assert not any("pytorch_model" in path for path in hub.asked)
    assert cli.main(["caption", "--ckpt", "somebody/other", "docs/scene.png"]) == 1
    assert "there is no run 'somebody/other' here, and no model on the hub" in capsys.readouterr().err


def test_a_name_below_a_folder_that_is_here_never_asks_the_hub(hub, tmp_path, monkeypatch, capsys):
    picture = str(Path("docs/scene.png").resolve())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert cli.main(["caption", "--ckpt", "runs/nothing", picture]) == 1
    assert "no checkpoint at 'runs/nothing'" in capsys.readouterr().err
    assert hub.asked == []
