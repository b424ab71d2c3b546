"""The way out that an error names is gone here as it stands there: it works, or leads one step further."""

import errno
import json
import os
import re
import shlex
import shutil
import socket

import pytest
import torch

import callbacks.checkpoints
import cli
from datamodules.readers import download
from tests.conftest import ROOT
from tests.core.test_locks import holder
from tests.tiny import make_config, make_folder

SMALL = ["--wandb=off", "--trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"), 12)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run of one epoch, made once, in a folder whose name a shell takes apart; it is only read or copied."""
    base = tmp_path_factory.mktemp("some runs")
    config = make_config(base / "tiny.yaml", data, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("CAPTION_CACHE", str(base / "cache"))
        patch.delenv("CAPTION_RUN_DIR", raising=False)
        assert cli.main(["fit", "--config", str(config), "--run_dir", str(base / "one"), "--wandb=off"]) == 0
    return base / "one"


@pytest.fixture
def config(data, tmp_path, monkeypatch):
    """An experiment of one epoch; runs go to a folder of the test."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return make_config(tmp_path / "tiny.yaml", data, epochs=1)


@pytest.fixture
def fit(config):
    return ["fit", "--config", str(config), *SMALL]


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail; returns what it says in its one line."""

    def call(args, code=1):
        capsys.readouterr()
        assert cli.main([str(arg) for arg in args]) == code
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return err.strip().splitlines()[-1]

    return call


def commands_in(line):
    """The commands that a message names, as a shell would take them."""
    found = re.findall(r"python cli\.py (.*?)(?=, or |, then |; |$)", line)
    return [shlex.split(text) for text in found]


def runs(args):
    return cli.main([*args, *(SMALL[:1] if args[0] in ("fit", "resume") else [])])


# runs that stop


def full_disk(monkeypatch, after):
    """Lets every checkpoint fail after some."""
    save, count = torch.save, iter(range(after))

    def write(checkpoint, file):
        if next(count, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(callbacks.checkpoints.torch, "save", write)


@pytest.mark.parametrize("saved", [0, 1])
def test_a_full_disk(fails, fit, monkeypatch, tmp_path, saved):
    """Before the first checkpoint as after it, `resume` goes on with the run: there it begins again."""
    run = tmp_path / "my runs" / "one"
    args = [*fit, "--run_dir", run, "--trainer.limit_val_batches=0", "--checkpoint_steps=2"]
    with monkeypatch.context() as patch:
        full_disk(patch, saved)
        line = fails(args)
        assert "free some space" in line
    again = fails(args)
    assert "never overwritten" in again
    (way,), (same,) = commands_in(line), commands_in(again)
    assert way == same
    assert way[0] == "resume"
    assert runs(way) == 0


@pytest.mark.skipif(os.name != "posix", reason="record locks are POSIX")
def test_a_folder_that_is_taken(fails, fit, tmp_path):
    with holder(tmp_path / "run") as process:
        line = fails([*fit, "--run_dir", tmp_path / "run"])
        process.kill()
    option = re.search(r"choose another (--run_dir)", line)[1]
    assert cli.main([*fit, option, str(tmp_path / "other"), "--trainer.limit_train_batches=1"]) == 0


def test_a_run_that_diverges(fails, fit, tmp_path):
    line = fails([*fit, "--run_dir", tmp_path / "run", "--model.init_args.lr=3000", "--trainer.max_epochs=3"])
    assert "lower the learning rate" in line
    clip = re.search(r"--trainer\.gradient_clip_val=\S+(?=\))", line)[0]
    assert cli.main([*fit, "--run_dir", str(tmp_path / "other"), "--model.init_args.lr=0.001", clip]) == 0


def test_a_damaged_checkpoint(fails, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(finished, tmp_path / "a run")
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    (way,) = commands_in(fails(["resume", run, "--wandb=off"]))
    assert runs([*way, "--trainer.max_epochs=2"]) == 0


def test_words_that_miss(fails, finished, tmp_path):
    line = fails(["test", "--ckpt_path", "best"])
    assert "--ckpt_path best needs --run_dir RUN" in line
    run = shutil.copytree(finished, tmp_path / "run")
    assert cli.main(["test", "--ckpt_path", "best", "--run_dir", str(run)]) == 0
    command = re.search(r"did you mean '(\w+)'", fails(["fittt"]))[1]
    assert "--config experiments/NAME.yaml" in fails([command]), "one step further"


def test_a_run_that_was_not_evaluated(monkeypatch, fails, finished, tmp_path):
    copies = [shutil.copytree(finished, tmp_path / name) for name in ("first run", "second")]
    compare = ["compare", *map(str, copies), "--split", "test", "--samples=0", "--images=0", "--out", "out"]
    monkeypatch.chdir(tmp_path)
    for _ in copies:
        (way,) = commands_in(fails(compare))
        assert way[0] == "test"
        assert cli.main(way) == 0
    assert cli.main(compare) == 0


# data


def test_images_that_cannot_be_read(fails, config, tmp_path):
    root = make_folder(tmp_path / "data", 12)
    fit = ["fit", "--config", str(config), *SMALL, "--data.init_args.root", str(root)]
    (root / "images" / "05.png").write_bytes(b"x")
    option = re.search(r"pass (on_bad_image=skip)", fails(fit))[1]
    assert cli.main([*fit, f"--data.init_args.{option}"]) == 0
    (root / "images" / "05.png").unlink()
    assert cli.main([*fit, f"--data.init_args.{re.search(r'pass (on_bad_image=skip)', fails(fit))[1]}"]) == 0


def test_where_a_data_set_can_be_had(fails, tmp_path, capsys, monkeypatch):
    """In a folder whose name a shell takes apart, on a machine without a network."""

    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(download, "_pause", lambda failures: 0.0)
    root = tmp_path / "land use"
    root.mkdir()
    assert cli.main(["data", "check", "ucm_captions", "--root", str(root)]) == 1
    words = shlex.split(re.search(r"had: python cli\.py (.*)", capsys.readouterr().out)[1])
    assert cli.main(words) == 1
    out = capsys.readouterr().out
    assert f"into '{root}'" in out, "what is missing is said with its folder"


def test_images_that_a_check_finds(capsys, tmp_path):
    root = make_folder(tmp_path / "data", 12)
    (root / "images" / "05.png").write_bytes(b"x")
    (root / "images" / "06.png").unlink()
    check = ["data", "check", "folder_captions", "--root", str(root)]
    assert cli.main(check) == 1
    options = set(re.findall(r"pass (on_bad_image=skip)", capsys.readouterr().out))
    assert cli.main([*check, f"--{options.pop()}"]) == 0
    assert "on_bad_image=skip: 2 images are skipped" in capsys.readouterr().out


def test_captions_whose_images_are_elsewhere(fails, config, tmp_path):
    root = make_folder(tmp_path / "data", 12)
    shutil.move(root / "images", tmp_path / "pictures of mine")
    fit = ["fit", "--config", str(config), *SMALL, "--data.init_args.root", str(root)]
    option = re.search(r"set (\w+) to the folder that has it", fails(fit))[1]
    assert cli.main([*fit, f"--data.init_args.{option}", str(tmp_path / "pictures of mine")]) == 0
    check = ["data", "check", "folder_captions", "--root", str(root)]
    assert cli.main(check) == 1
    assert cli.main([*check, f"--{option}={tmp_path / 'pictures of mine'}"]) == 0


def test_a_caption_file_of_several(fails, config, tmp_path):
    root = make_folder(tmp_path / "data", 12)
    (root / "captions.csv").rename(root / "one.csv")
    (root / "two.csv").write_text("x\n")
    fit = ["fit", "--config", str(config), *SMALL, "--data.init_args.root", str(root)]
    option = re.search(r"set (\w+)", fails(fit))[1]
    assert cli.main([*fit, f"--data.init_args.{option}=one.csv"]) == 0


def test_other_data_with_the_vocabulary_of_a_run(fails, finished, tmp_path):
    root = make_folder(tmp_path / "data", 12)
    text = (root / "captions.csv").read_text().replace("picture", "photograph")
    (root / "captions.csv").write_text(text)
    test = [
        "test",
        "--ckpt_path",
        str(finished),
        "--run_dir",
        str(tmp_path / "out"),
        "--data.init_args.root",
        str(root),
    ]
    line = fails(test)
    (option,) = shlex.split(re.search(r"with (--data\.init_args\.tokenizer=.*?), or", line)[1])
    assert cli.main([*test, option]) == 0


def test_a_tokenizer_that_is_not_there(fails, fit):
    line = fails([*fit, "--data.init_args.tokenizer=nowhere/nothing"])
    option = re.search(r"(tokenizer[=:] ?word)", line)[1].replace(": ", "=")
    assert cli.main([*fit, f"--data.init_args.{option}"]) == 0


# other commands


def test_the_command_that_fits_a_run(fails, finished, data):
    picture = str(data / "images" / "00.png")
    line = fails(["label", "--ckpt", finished, picture])
    command = re.search(r"python cli\.py (\w+)", line)[1]
    assert cli.main([command, "--ckpt", str(finished), picture]) == 0


def test_a_broken_image_among_others(fails, finished, data, tmp_path):
    (tmp_path / "b.png").write_bytes(b"x")
    args = ["caption", "--ckpt", str(finished), str(data / "images" / "00.png"), str(tmp_path / "b.png")]
    option = re.search(r"(--skip-bad) skips it", fails(args))[1]
    assert "skipped: " in fails([*args, option]), "the others are captioned"


def test_predictions_that_are_missing(fails, tmp_path):
    references = [{"image_id": number, "caption": "a dog"} for number in range(2)]
    (tmp_path / "r.json").write_text(json.dumps({"annotations": references}))
    (tmp_path / "p.json").write_text(json.dumps(references[:1]))
    args = ["score", str(tmp_path / "p.json"), str(tmp_path / "r.json"), "--no-java"]
    assert cli.main([*args, re.search(r"with (--[a-z-]+)", fails(args))[1]]) == 0


def test_code_of_others(fails, finished, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_callback.py").write_text("from lightning import Callback\n\n\nclass Mine(Callback):\n    pass\n")
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("tests.tiny.KillAfter", "my_callback.Mine"))
    for args in (["test", "--ckpt_path", str(run)], ["resume", str(run), "--wandb=off"]):
        option = re.search(r"pass (--\w+) to run it", fails(args))[1]
        assert cli.main([*args, option]) == 0
