"""The stages of the emotion transfer hand over to each other, by the experiment files as they are."""

import json

import torch

import cli
from tests.conftest import ROOT

FAST = ["--wandb=off", "--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0"]
FEW = ["--data.init_args.num_train=30", "--data.init_args.num_val=8", "--data.init_args.num_test=8"]


def call(command, name, *options):
    assert cli.main([command, "--config", f"experiments/offline/{name}.yaml", *map(str, options)]) == 0


def test_from_teacher_to_transfer(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    teacher, pseudo, student, target = (tmp_path / name for name in ("teacher", "pseudo", "student", "target"))
    once = [*FAST, "--trainer.max_epochs=1", "--run_dir"]
    call("fit", "emotion_teacher", *once, teacher, *FEW, "--model.init_args.buckets=1024")

    words = f"--data.init_args.tokenizer={teacher}"
    labelling = ["--ckpt_path", teacher, "--model.init_args.buckets=1024", words, "--data.init_args.num_train=40"]
    call("predict", "emotion_pseudo_labels", "--run_dir", pseudo, *labelling)
    assert json.loads((pseudo / "pseudo_labels" / "summary.json").read_text())["images"] == 40

    source = "--data.init_args.source.init_args"
    capsys.readouterr()
    few = [f"{source}.tokenizer={teacher}", f"{source}.num_train=40", "--data.init_args.target.init_args.num_train=30"]
    call("fit", "emotion_student", *once, student, f"--data.init_args.labels={pseudo}", *few)
    assert json.loads((student / "pseudo_label_audit.json").read_text())["images"] == 40

    taken = [f"--model.init_args.init_from={student}", "--model.init_args.cut_depth=null", words]
    call("fit", "emotion_transfer", *once, target, *FEW, *taken, "--model.init_args.freeze_transferred=true")
    printed = capsys.readouterr().out
    assert "transfer: 5 of 5 blocks copied" in printed
    assert "NOT copied" not in printed
    a, b = (torch.load(run / "checkpoints" / "best.ckpt", weights_only=True) for run in (student, target))
    assert a["inference"]["tokenizer"] == b["inference"]["tokenizer"]
    assert a["inference"]["label_names"] == b["inference"]["label_names"]
    assert torch.equal(a["state_dict"]["classifier.fc1.weight"], b["state_dict"]["classifier.fc1.weight"])
