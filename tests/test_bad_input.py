"""Mistakes of a user and of the machine: one line with the way out, an exit code, and nothing lost."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from PIL import Image

import cli
from callbacks.checkpoints import AtomicCheckpointIO, best_checkpoint
from callbacks.progress import ProgressBar
from commands.trainer import runs
from commands.trainer.train import main as train
from core.errors import UserError
from reporting.loggers import CSVFile
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"), 12)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A run of one epoch, made once; tests that change it take a copy."""
    base = tmp_path_factory.mktemp("finished")
    run = base / "runs" / "tiny" / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("CAPTION_CACHE", str(base / "cache"))
        patch.delenv("CAPTION_RUN_DIR", raising=False)
        config = make_config(base / "tiny.yaml", folder, epochs=1)
        assert cli.main(["fit", "--config", str(config), "--run_dir", str(run), "--wandb=off"]) == 0
    return run


@pytest.fixture
def fit(monkeypatch, capsys, tmp_path, folder):
    """Starts a run that must fail; returns its one line."""
    monkeypatch.chdir(ROOT)

    def start(*options, config=None, root=folder):
        config = config or make_config(tmp_path / "tiny.yaml", root, epochs=1)
        options = ("--run_dir", str(tmp_path / "run"), "--wandb=off", *options)
        return error_of(capsys, ["fit", "--config", str(config), *options])

    return start


def error_of(capsys, args, code=1):
    """Runs a command that must fail; returns its one line."""
    assert cli.main(args) == code
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


# pictures


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named_wherever_it_is_read(fit, tmp_path, workers):
    root = make_folder(tmp_path / "data", 12)
    picture = root / "images" / "05.png"
    picture.write_bytes(picture.read_bytes()[:80])
    line = fit(f"--data.init_args.num_workers={workers}", root=root)
    assert line.startswith(f"error: {picture}: image cannot be decoded")
    assert "on_bad_image=skip" in line


def test_skipped_pictures_are_not_told_to_be_skipped(fit, tmp_path, caplog):
    root = make_folder(tmp_path / "data", 12)
    for picture in (root / "images").iterdir():
        picture.write_bytes(b"x")
    assert "no usable image in split 'train'" in fit("--data.init_args.on_bad_image=skip", root=root)
    assert "7 of 7 images are skipped" in caplog.text
    assert "pass on_bad_image" not in caplog.text


def test_caption_leaves_the_debris_of_archives_alone(monkeypatch, capsys, finished, tmp_path):
    monkeypatch.chdir(ROOT)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"x")
    assert cli.main(["caption", "--ckpt", str(finished), str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


# configuration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainer:\n  max_epochs: [1\nmodel: x\n", "bad.yaml, line 3, column 6: not valid YAML"),
        ("- a\n", "bad.yaml: expected keys such as model, data and trainer, found ['a']"),
        ("", "found nothing"),
        ("model:\n  class_path: lightning_modules.DualTransfer\n  lr: 1\n", "bad.yaml: model.lr is not accepted"),
        ("trainer:\n  callbacks:\n  - {class_path: a.B, dict_kwargs: {c: 1}}\n", "callbacks.0.dict_kwargs is not"),
        ("trainer:\n  max_epoch: 1\n", "'trainer.max_epoch' in "),
        ("trainer:\n  max_epoch: 1\n", "bad.yaml, line 2 (python"),
        ("model:\n  init_args:\n    beams: ${nowhere}\n", "nowhere' not found"),
        ("data:\n  init_args:\n    root: ${oc.env:NO_SUCH_THING}\n", "'NO_SUCH_THING' not found"),
    ],
)
def test_the_file_and_the_line_of_a_mistake(monkeypatch, capsys, tmp_path, folder, text, expected):
    monkeypatch.chdir(ROOT)
    good, bad = make_config(tmp_path / "tiny.yaml", folder), tmp_path / "bad.yaml"
    bad.write_text(text)
    assert expected in error_of(capsys, ["fit", "--config", str(good), "--config", str(bad), "--wandb=off"])


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--model.init_args.lr=-1", "model.init_args.lr is -1.0"),
        ("--model.init_args.dropout=2", "dropout probability"),
        ("--model.init_args.label_smoothing=1.5", "label_smoothing is 1.5"),
        ("--model.init_args.val_images=0", "val_images is 0"),
        ("--model.init_args.merging=mlpp", "expected one of 'mlp', 'layer_norm'"),
        ("--model.dict_kwargs.foo=1", "dict_kwargs is not accepted"),
        ("--data.init_args.num_workers=-1", "num_workers is -1"),
        ("--data.init_args.captions_per_image=0", "captions_per_image is 0"),
        ("--data.init_args.root=", "root is empty"),
        ("--checkpoint_steps=0", "checkpoint_steps is 0"),
        ("--trainer.accumulate_grad_batches=0", "accumulate_grad_batches is below 1"),
        ("--trainer.val_check_interval=100", "`val_check_interval` (100)"),
    ],
)
def test_values_out_of_range(fit, option, expected):
    assert expected in fit(option)


@pytest.mark.parametrize("args", [["fit"], ["test"]])
def test_a_command_without_an_experiment_says_what_to_pass(monkeypatch, capsys, args):
    monkeypatch.chdir(ROOT)
    assert "--config experiments/NAME.yaml" in error_of(capsys, args)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["caption", "a.png"], "required: --ckpt"),
        (["caption", "--ckpt", "x", "--beams", "two", "a.png"], "--beams"),
        (["score", "a.json"], "required: references"),
        (["resume"], "required: run"),
        (["data", "prepare", "coco"], "required: --root"),
    ],
)
def test_wrong_options_of_commands_take_one_line(capsys, args, expected):
    assert expected in error_of(capsys, args)


def test_no_beams_are_not_the_default(monkeypatch, capsys, finished, folder):
    monkeypatch.chdir(ROOT)
    picture = str(folder / "images" / "00.png")
    assert "beams=0" in error_of(capsys, ["caption", "--ckpt", str(finished), picture, "--beams=0"])


def test_mixed_precision_with_clipped_gradients(monkeypatch, tmp_path, folder):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", folder)
    options = ["--trainer.precision=16-mixed", "--trainer.gradient_clip_val=1", "--trainer.fast_dev_run=true"]
    assert cli.main(["fit", "--config", str(config), "--wandb=off", *options]) == 0


# runs


def test_a_model_of_another_size(monkeypatch, capsys, finished):
    monkeypatch.chdir(ROOT)
    line = error_of(capsys, ["test", "--ckpt_path", str(finished), "--model.init_args.language_dim=32"])
    assert "the checkpoint does not match this model" in line


def test_training_goes_on_from_the_last_checkpoint_only(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    last, best = finished / "checkpoints" / "last.ckpt", finished / "checkpoints" / "best.ckpt"
    assert runs.locate("fit", None, str(finished), []) == (finished, last)
    folder, checkpoint = runs.locate("fit", None, str(best), ["a/b.yaml"])
    assert (folder.parts[:2], checkpoint) == (("runs", "b"), best)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").touch()
    for run_dir, name in ((finished, "best"), (tmp_path / "other", str(last))):
        with pytest.raises(UserError, match="never overwritten"):
            runs.locate("fit", str(run_dir), name, [])


def test_results_are_never_overwritten(finished, tmp_path):
    folder, checkpoint = runs.locate("test", str(finished), "best", [])
    assert folder == finished / "eval" / "test"
    assert checkpoint == finished / "checkpoints" / "best.ckpt"
    (tmp_path / "predictions.json").touch()
    with pytest.raises(UserError, match="holds results already"):
        runs.locate("predict", str(tmp_path), str(checkpoint), [])


def test_a_run_started_again_keeps_its_experiments_name(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.locate("fit", None, None, [str(finished / "config.yaml")])[0].parts[:2] == ("runs", "tiny")


def test_a_moved_run_remembers_its_best(finished, tmp_path):
    moved = shutil.copytree(finished, tmp_path / "moved") / "checkpoints"
    state = torch.load(moved / "last.ckpt", weights_only=True)["callbacks"]
    saved = next(value for key, value in state.items() if key.startswith("BestCheckpoint"))
    here, nowhere = (best_checkpoint(path, "val/cider_d") for path in (moved, tmp_path / "new"))
    here.load_state_dict(saved)
    assert here.best_model_score == saved["best_model_score"]
    assert here.best_k_models == {str(moved.resolve() / "best.ckpt"): saved["best_model_score"]}
    nowhere.load_state_dict(saved)
    assert nowhere.best_model_path == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("run.json", "run.json, line 2, column 19: not valid JSON"),
        ("checkpoints/last.ckpt", "last.ckpt' cannot be read"),
    ],
)
def test_a_damaged_run(monkeypatch, capsys, finished, tmp_path, name, expected):
    monkeypatch.chdir(ROOT)
    run = shutil.copytree(finished, tmp_path / "run")
    (run / name).write_bytes((run / name).read_bytes()[:20])
    assert expected in error_of(capsys, ["resume", str(run), "--wandb=off"])


def test_resuming_a_finished_run_says_so(monkeypatch, capsys, finished):
    monkeypatch.chdir(ROOT)
    before = (finished / "checkpoints" / "last.ckpt").read_bytes()
    assert cli.main(["resume", str(finished), "--wandb=off"]) == 0
    assert "nothing is left to train" in capsys.readouterr().out
    assert (finished / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_loss_that_is_no_number_stops_before_it_is_saved(monkeypatch, capsys, finished, tmp_path):
    monkeypatch.chdir(ROOT)
    run = shutil.copytree(finished, tmp_path / "run")
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    options = ["--wandb=off", "--trainer.max_epochs=2"]
    monkeypatch.setattr("lightning_modules.captioning.token_loss", lambda logits, *_: (logits * float("nan")).mean())
    assert "the training loss is nan at step 4 (images " in error_of(capsys, ["resume", str(run), *options])
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


# a full disk: everything written to /dev/full fails as on one

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


@full
def test_figures_survive_a_full_disk(tmp_path):
    first = CSVFile(tmp_path)
    first.log_metrics({"a": 1.0}, 1)
    (tmp_path / f"metrics.csv.tmp{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"metrics\.csv cannot be written \(No space left on device\)"):
        first.log_metrics({"b": 1.0}, 2)
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,a", "1,1.0"]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


@full
def test_a_checkpoint_survives_a_full_disk(tmp_path):
    writer, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"a": 1}, path)
    path.with_name(f"last.ckpt.tmp{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"the previous 'last\.ckpt' is intact"):
        writer.save_checkpoint({"a": torch.zeros(10**6)}, path)
    assert writer.load_checkpoint(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_called_so(capsys, monkeypatch):
    def write(_):
        raise OSError(28, "No space left on device", "/somewhere/x.json")

    monkeypatch.setattr("commands.score.main", write)
    assert "'/somewhere/x.json': the disk is full" in error_of(capsys, ["score", "a", "b"])


# what a run prints


def test_a_run_prints_no_noise(monkeypatch, capfd, caplog, tmp_path, folder):
    monkeypatch.chdir(ROOT)
    handler = logging.StreamHandler()
    logging.getLogger("lightning.pytorch").addHandler(handler)
    try:
        config = make_config(tmp_path / "tiny.yaml", folder, epochs=1)
        assert train(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run"), "--wandb=offline"]) == 0
    finally:
        logging.getLogger("lightning.pytorch").removeHandler(handler)
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "DualTransfer: 1.5 million parameters, all trainable",
        f"run folder: {tmp_path / 'run'}",
    ]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["wandb_id"]


def test_the_bar_shows_short_figures(monkeypatch):
    metrics = {"v_num": "a1b2", "train/loss": 1.0}
    monkeypatch.setattr("lightning.pytorch.callbacks.RichProgressBar.get_metrics", lambda *_: metrics)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    bar = ProgressBar()
    bar.get_metrics(trainer, BoringModel())
    assert bar._figures["metrics"] == {"loss": 1.0}
