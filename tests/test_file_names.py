"""Files and folders whose names are no UTF-8 are read, shown and written like others, or refused in a line."""

import json
import os
import shutil
import sys

import pytest

import cli
from core.csv_files import csv_text
from core.files import write_json, write_text
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
BAD = os.fsdecode(b"a \xff")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in a folder with such a name, by an experiment in a file with such a name; only read."""
    base = tmp_path_factory.mktemp("names")
    config = make_config(base / f"{BAD}.yaml", make_folder(base / "data", 12), epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("CAPTION_CACHE", str(base / "cache"))
        patch.delenv("CAPTION_RUN_DIR", raising=False)
        assert cli.main(["fit", "--config", str(config), "--run_dir", str(base / BAD), "--wandb=off"]) == 0
    return base / BAD


def test_commands_read_and_write_folders_of_any_name(run, tmp_path, capsys):
    copy = tmp_path / BAD
    shutil.copytree(run, copy)
    quiet = "--trainer.enable_progress_bar=false"
    for words in (
        ["test", "--ckpt_path", copy, quiet],
        ["predict", "--ckpt_path", copy, quiet],
        ["report", copy],
        ["compare", copy, copy / "eval" / "test", "--out", tmp_path / f"out {BAD}"],
        ["resume", copy],
    ):
        assert cli.main([str(word) for word in words]) == 0, (words[0], capsys.readouterr().err)
    written = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".csv", ".html", ".yaml")]
    assert len(written) > 8
    for path in written:
        path.read_text("utf-8")


def test_images_of_any_name(run, tmp_path, capsys):
    folder = tmp_path / BAD
    folder.mkdir()
    shutil.copy(ROOT / "docs" / "scene.png", folder / f"{BAD}.png")
    (folder / f"broken {BAD}.png").write_bytes(b"x")
    assert cli.main(["caption", "--ckpt", str(run), str(folder), "--skip-bad", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["image"] == str(folder / f"{BAD}.png")
    assert "broken a \\udcff.png: image cannot be decoded" in err
    assert cli.main(["caption", "--ckpt", str(run), str(folder / f"{BAD}.png")]) == 0
    assert "a \\udcff.png" in capsys.readouterr().out
    data = make_folder(tmp_path / f"data {BAD}", 12)
    assert cli.main(["data", "check", "folder_captions", "--root", str(data)]) == 0


@pytest.mark.parametrize("way", ["--data.init_args.root={}", "--data.init_args.root {}"])
def test_what_a_configuration_cannot_hold_is_refused(run, tmp_path, capsys, way):
    config = make_config(tmp_path / "x.yaml", tmp_path, epochs=1)
    words = [word.format(tmp_path / BAD) for word in way.split(" ")]
    assert cli.main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run"), *words]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: --data.init_args.root: ")
    assert "a \\udcff' is not UTF-8" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_tables_and_json_hold_them(tmp_path):
    write_json(tmp_path / "x.json", {BAD: BAD})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {BAD: BAD}
    write_text(tmp_path / "x.csv", csv_text(["image"], [[BAD]]))
    assert (tmp_path / "x.csv").read_text("utf-8") == "image\na \\udcff\n"
