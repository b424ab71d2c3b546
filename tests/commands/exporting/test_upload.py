"""An upload comes back as what was exported, in one commit, private unless asked for, and a refusal is one line."""

import json
from pathlib import Path

import pytest

import cli
from core.exported import TOKENIZER
from core.hub import only_local
from lightning_modules import load_captioner
from tests.commands.exporting.test_export import CASES, checkpoint_of
from tests.twins import batch_maker

PICTURE = "docs/scene.png"
NAME = "somebody/model"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    case = next(case for case in CASES if case.twin == "dual_transfer")
    with batch_maker(tmp_path_factory.mktemp("cache"), 2) as batches:
        return checkpoint_of(case, batches, tmp_path_factory.mktemp("run"))[0]


@pytest.fixture
def hub(hub, monkeypatch):
    hub.tokens = {"writes": True, "reads": False}
    monkeypatch.setenv("HF_TOKEN", "writes")
    return hub


def upload(run, *options, name=NAME):
    return cli.main(["export", str(run), "--to", "hub", "--repo", name, *options])


def test_an_upload_gives_the_same_captions(hub, run, capsys):
    assert upload(run, "--license", "mit") == 0
    said = capsys.readouterr().out
    assert f"uploaded: {hub.address}/{NAME}" in said
    assert f"python cli.py demo --ckpt {NAME}" in said
    assert load_captioner(NAME).caption(PICTURE) == load_captioner(run).caption(PICTURE)
    assert hub.commits == [["README.md", "config.json", "model.safetensors", TOKENIZER]]
    assert [path for path in hub.asked if path.startswith("PUT large/")], "weights go as a large file"
    card = (hub.root / NAME / "README.md").read_text()
    assert f'load_captioner("{NAME}")' in card
    assert "license: mit" in card


def test_it_is_private_unless_asked_for(hub, run, monkeypatch, capsys):
    assert upload(run) == 0
    assert upload(run, "--public", name="somebody/open") == 0
    assert hub.private == {NAME}
    monkeypatch.setenv("HF_TOKEN", "nobody's")
    capsys.readouterr()
    assert cli.main(["caption", "--ckpt", NAME, PICTURE]) == 1
    assert "no model on the hub that can be read" in capsys.readouterr().err
    assert cli.main(["caption", "--ckpt", "somebody/open", PICTURE]) == 0


def test_what_is_there_is_only_updated_when_asked_for(hub, run, capsys):
    (hub.root / NAME).mkdir(parents=True)
    for name in ("model.safetensors", TOKENIZER, "notes.txt"):
        (hub.root / NAME / name).write_text("{}")
    assert upload(run) == 1
    assert "holds files already; give another name, or --update" in capsys.readouterr().err
    assert hub.commits == []
    assert upload(run, "--update") == 0
    assert (hub.root / NAME / "notes.txt").exists()
    assert load_captioner(NAME).caption(PICTURE) == load_captioner(run).caption(PICTURE)


def test_files_of_an_earlier_model_go_in_the_same_commit(hub, run, monkeypatch):
    (hub.root / NAME).mkdir(parents=True)
    (hub.root / NAME / TOKENIZER).write_text("{}")

    def without_tokenizer(file, folder, out, **options):
        out.mkdir()
        for name in ("README.md", "config.json", "model.safetensors"):
            (out / name).write_text("---\n")

    monkeypatch.setattr("commands.export.write_folder", without_tokenizer)
    assert upload(run, "--update") == 0
    assert hub.commits == [["README.md", "config.json", "model.safetensors", f"-{TOKENIZER}"]]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, "there is no token for the hub; run 'hf auth login', or set HF_TOKEN"),
        ("reads", "a token with write access to this owner is needed"),
        ("unknown", "a token with write access to this owner is needed"),
    ],
)
def test_without_the_right_to_write_it_is_one_line(hub, run, monkeypatch, capsys, token, expected):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert upload(run) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (hub.root / NAME).exists()


def test_a_hub_that_is_not_there_is_one_line(hub, run, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    only_local.cache_clear()
    assert upload(run) == 1
    error = capsys.readouterr().err
    assert "the hub cannot be reached; go online, or write a folder with --out FOLDER" in error
    assert error.count("\n") == 1
    assert hub.asked == []


def test_a_hub_that_refuses_the_commit_is_one_line(hub, run, monkeypatch, capsys):
    monkeypatch.setattr(hub, "large", Forgetful())
    assert upload(run) == 1
    error = capsys.readouterr().err
    assert "the hub did not take it; try again" in error
    assert "the large file was never uploaded" in error
    assert [line for line in error.splitlines() if "error: " in line] == [error.splitlines()[-1]]
    assert "Traceback" not in error


class Forgetful(dict):
    """Large files that are lost."""

    def __setitem__(self, digest, content):
        pass


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--to", "hub"], "--to hub: expected --repo OWNER/NAME, too"),
        (["--repo", NAME], "--repo does not go with --to folder"),
        (["--public"], "--public does not go with --to folder"),
        (["--to", "hub", "--repo", NAME, "--out", "here"], "--out does not go with --to hub"),
        (["--to", "hub", "--repo", "model"], "expected owner/name, such as somebody/scenes"),
        (["--to", "hub", "--repo", "a//b"], "expected owner/name, such as"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(hub, run, capsys, options, expected):
    assert cli.main(["export", str(run), *options]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert json.dumps(hub.asked) == "[]"
    assert not Path("here").exists()
