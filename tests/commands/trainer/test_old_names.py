"""Names of the version before are read for one version: flags, files, checkpoints."""

from pathlib import Path

import pytest
import yaml

import cli
from commands.trainer.old_names import NewNames
from core.renamed import DATA_OPTIONS, OPTIONS, renamed_checkpoint
from lightning_modules import METHODS
from tests.conftest import ROOT

NOW = set().union(*(method.options() for method in METHODS.values()))


def test_every_new_name_is_an_option_and_no_old_one_is():
    assert set(OPTIONS.values()) <= NOW
    assert not set(OPTIONS) & NOW


def test_flags_and_files_get_the_new_names(tmp_path, capsys):
    file = tmp_path / "offline" / "old.yaml"
    file.parent.mkdir()
    content = {"model": {"class_path": "lightning_modules.AttentionRNN", "init_args": {"state_width": 8, "lr": 0.1}}}
    file.write_text(yaml.safe_dump(content))
    with NewNames() as names:
        args = names.arguments(["fit", "--config", str(file), "--model.init_args.word_width=4", "--wandb=off"])
        assert [args[0], *args[-2:]] == ["fit", "--wandb=off", "--model.init_args.word_dim=4"]
        assert args[2].endswith("offline/old.yaml"), "runs are named after the file and its folder"
        assert yaml.safe_load(Path(args[2]).read_text())["model"]["init_args"] == {"hidden_dim": 8, "lr": 0.1}
        assert names.original(f"{args[2]}: wrong") == f"{file}: wrong"
    out = capsys.readouterr().out
    assert "state_width is now hidden_dim" in out
    assert "word_width is now word_dim" in out


def test_new_names_are_left_alone(tmp_path):
    file = tmp_path / "new.yaml"
    file.write_text("model: {init_args: {hidden_dim: 8}}")
    args = ["fit", f"--config={file}", "--model.init_args.lr", "0.1"]
    with NewNames() as names:
        assert names.arguments(args) == ["fit", "--config", str(file), "--model.init_args.lr", "0.1"]


def test_an_old_flag_trains(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    small = ["--data.init_args.num_train=40", "--data.init_args.num_val=8", "--model.init_args.state_width=16"]
    args = ["fit", "--config", "experiments/offline/attention_rnn.yaml", "--trainer.fast_dev_run=true", *small]
    assert cli.main(args) == 0
    assert "state_width is now hidden_dim" in capsys.readouterr().out


def test_a_wrong_value_under_an_old_name_is_one_line(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    args = ["fit", "--config", "experiments/offline/attention_rnn.yaml", "--model.init_args.state_width=wide"]
    assert cli.main(args) == 1
    assert "expected int" in capsys.readouterr().err


def test_checkpoints_get_the_new_names():
    old = {
        "inference": {"method": "ucm_captioning", "decoding": {"consensus": True, "neighbours": 3, "beams": 4}},
        "hyper_parameters": {"hidden": [8], "guided": True},
        "state_dict": {"captioner.coder.labeller.head.1.weight": 1, "captioner.bank.states": 2},
    }
    new = renamed_checkpoint(old)
    assert new["inference"] == {
        "method": "code_captioning",
        "decoding": {"mbr_reranking": True, "retrieval_images": 3, "beams": 4},
    }
    assert new["hyper_parameters"] == {"hidden_dims": [8], "attend_code": True}
    assert set(new["state_dict"]) == {
        "captioner.coder.classifier.head.1.weight",
        "captioner.retrieval_index.states",
    }
    assert renamed_checkpoint(new) == new


@pytest.mark.parametrize(
    ("old", "shares"),
    [
        ({"sampling_start": None}, [0.0, 0.0, 0.0]),
        ({"sampling_start": 0, "sampling_increase": 0.1, "sampling_maximum": 0.2}, [0.1, 0.2, 0.2]),
        ({"sampling_start": 1, "sampling_increase": 0.125, "sampling_maximum": 0.25}, [0.0, 0.125, 0.25]),
    ],
)
def test_the_old_schedule_of_sampling_gives_the_same_shares(old, shares):
    from core.renamed import renamed_options
    from lightning_modules.parts.sampling import scheduled_share

    new = renamed_options(old)
    values = (
        new["scheduled_sampling"],
        new.get("scheduled_sampling_start", 0),
        new.get("scheduled_sampling_epochs", 0),
    )
    assert [scheduled_share(*values, epoch) for epoch in range(3)] == pytest.approx(shares)


def test_old_options_of_data_modules_are_read(tmp_path, capsys):
    source = {"class_path": "x", "init_args": {"average_token_ids": True, "root": "y"}}
    content = {"data": {"class_path": "z", "init_args": {"average_token_ids": False, "source": source}}}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    with NewNames() as names:
        read = yaml.safe_load(Path(names.arguments(["test", "--config", str(file)])[2]).read_text())
    inner = {"class_path": "x", "init_args": {"captions_per_image": "average", "root": "y"}}
    assert read["data"]["init_args"] == {"source": inner}
    note = f"note: {file}: average_token_ids is now captions_per_image=average; old names are read until"
    assert note in capsys.readouterr().out


@pytest.mark.parametrize("section", ["data", "data.init_args", "data.init_args.source.init_args", "data.source"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_old_flags_of_data_modules_are_read(capsys, section, value):
    with NewNames() as names:
        found = names.arguments(["fit", f"--{section}.average_token_ids", value, "--data.init_args.root=x"])
    full = section if section.endswith("init_args") else f"{section}.init_args"
    new = [f"--{full}.captions_per_image=average"] if value == "true" else []
    assert found == ["fit", "--data.init_args.root=x", *new]
    assert "average_token_ids is now captions_per_image=average" in capsys.readouterr().out


def test_an_old_flag_of_the_data_trains(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    small = ["--data.init_args.num_train=40", "--data.init_args.num_val=8", "--model.init_args.hidden_dim=16"]
    args = ["fit", "--config", "experiments/offline/attention_rnn.yaml", "--trainer.fast_dev_run=true", *small]
    assert cli.main([*args, "--data.init_args.average_token_ids=true"]) == 0
    assert "average_token_ids is now captions_per_image=average" in capsys.readouterr().out


def test_the_page_of_renamed_options_is_complete():
    page = (ROOT / "docs" / "migration.md").read_text()
    missing = [old for old in (*OPTIONS, *DATA_OPTIONS) if f"| `{old}`" not in page]
    assert not missing
