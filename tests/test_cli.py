"""The way in: fast help, one-line errors, and a whole life of a run through the command line."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

import cli
from lightning_modules import load_captioner
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'lightning', 'pandas'}"
    code = f"import sys, cli; cli.main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in (*cli.TRAINER_COMMANDS, *cli.COMMANDS):
        assert f"  {command} " in done.stdout


def error_of(capsys, args):
    """Runs a command that must fail; returns its one line."""
    assert cli.main(args) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["fitt"], "no command 'fitt': did you mean 'fit'"),
        (["--config", "x.yaml", "fit"], "python cli.py fit --config"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["test", "--ckpt_path", "nowhere"], "no checkpoint at 'nowhere'"),
        (["resume", "nowhere"], "'nowhere' is not a run folder"),
        (["caption", "--ckpt", "nowhere", "cli.py"], "no checkpoint at 'nowhere'"),
        (["caption", "--ckpt", "nowhere", "no.jpg"], "no image or folder 'no.jpg'"),
    ],
)
def test_wrong_words(capsys, monkeypatch, args, expected):
    monkeypatch.chdir(ROOT)
    assert expected in error_of(capsys, args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A run of two epochs, made once for the tests below."""
    base = tmp_path_factory.mktemp("trained")
    config = make_config(base / "tiny.yaml", folder, epochs=2)
    run = base / "runs" / "tiny" / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("CAPTION_CACHE", str(base / "cache"))
        patch.delenv("CAPTION_RUN_DIR", raising=False)
        assert cli.main(["fit", "--config", str(config), "--run_dir", str(run), "--wandb=offline"]) == 0
    return run


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--model.init_args.lrr=1", "'lrr' is not accepted"),
        ("--model.init_args.lr=fast", "expected float. Got value: fast"),
        ("--trainer.max_epoch=3", "--trainer.max_epoch"),  # an abbreviation is not an option
        ("--trainer.accelerator=abacus", "accelerator='abacus'"),
        ("--data.init_args.root=/nowhere", "/nowhere"),
        ("--data.init_args.batch_size=0", "batch_size is 0"),
        ("--ckpt_path=last", "--ckpt_path last needs --run_dir"),
        ("--model.init_args.init_from=/nowhere", "no checkpoint at '/nowhere'"),
    ],
)
def test_wrong_options(capsys, monkeypatch, tmp_path, folder, option, expected):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", folder)
    args = ["fit", "--config", str(config), "--wandb=off", option]
    if not option.startswith("--ckpt"):
        args += ["--run_dir", str(tmp_path / "run")]
    assert expected in error_of(capsys, args)


def test_run_folder_holds_what_it_should(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {"config.yaml", "run.json", "checkpoints", "metrics.csv", "predictions.json", "wandb"}
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    predictions = json.loads((trained / "predictions.json").read_text())
    assert len(predictions) == 4
    assert all(set(row) == {"image_id", "caption"} for row in predictions)


def test_a_run_is_never_overwritten(capsys, monkeypatch, trained, folder, tmp_path):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", folder)
    before = (trained / "metrics.csv").read_bytes()
    assert "never overwritten" in error_of(capsys, ["fit", "--config", str(config), "--run_dir", str(trained)])
    assert (trained / "metrics.csv").read_bytes() == before


def test_checkpoint_holds_plain_values_and_serves_alone(trained, tmp_path):
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert json.loads(json.dumps(checkpoint["inference"])) == checkpoint["inference"]
    assert {"method", "tokenizer", "transform", "decoding"} <= set(checkpoint["inference"])
    alone = tmp_path / "elsewhere.ckpt"
    alone.write_bytes((trained / "checkpoints" / "best.ckpt").read_bytes())
    picture = Image.new("RGB", (50, 40), "red")
    captioner = load_captioner(alone)
    ((caption, log_prob),) = captioner.caption([picture])[0]
    assert isinstance(caption, str)
    assert log_prob < 0
    assert captioner.caption([picture, picture])[1][0][0] == caption


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_evaluation_needs_only_the_run(monkeypatch, capsys, trained, command):
    monkeypatch.chdir(ROOT)
    assert cli.main([command, "--ckpt_path", str(trained)]) == 0
    out = capsys.readouterr().out
    folder = trained / "eval" / command
    assert f"run folder: {folder}" in out
    assert json.loads((folder / "predictions.json").read_text())
    if command != "predict":
        scores = json.loads((folder / "metrics.json").read_text())["this model"]
        assert 0 <= scores["bleu4"] <= 1
        assert "cider_d" in scores
        assert "this model" in out


def test_caption_command(monkeypatch, capsys, trained, folder):
    monkeypatch.chdir(ROOT)
    pictures = folder / "images"
    args = ["caption", "--ckpt", str(trained), str(pictures), str(pictures / "00.png"), "--device=cpu"]
    assert cli.main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 25
    assert lines[0].startswith(f"{pictures / '00.png'}: ")
    assert lines[0] == lines[-1]
    assert cli.main([*args, "--json", "--num_captions", "2", "--beams=3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert set(rows[0]) == {"image", "captions"}
    assert [set(caption) for caption in rows[0]["captions"]] == [{"caption", "log_prob"}] * 2
    scores = [caption["log_prob"] for caption in rows[0]["captions"]]
    assert len(set(scores)) == 2


def test_caption_names_a_broken_picture(monkeypatch, capsys, trained, tmp_path):
    monkeypatch.chdir(ROOT)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    args = ["caption", "--ckpt", str(trained), str(tmp_path)]
    assert "b.png" in error_of(capsys, args)
    assert cli.main([*args, "--skip-bad"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert "skipped" in captured.err


def test_wrong_tokenizer_for_a_checkpoint(monkeypatch, capsys, trained):
    monkeypatch.chdir(ROOT)
    message = error_of(capsys, ["test", "--ckpt_path", str(trained), "--data.init_args.min_count=12"])
    assert "another tokenizer or vocabulary" in message


def test_foreign_files_are_no_checkpoints(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "x.ckpt"
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(picture)
    path.write_bytes(b"nonsense")
    assert "cannot be read" in error_of(capsys, ["caption", "--ckpt", str(path), str(picture)])
    torch.save({"state_dict": {}}, path)
    assert "not written by this project" in error_of(capsys, ["caption", "--ckpt", str(path), str(picture)])
