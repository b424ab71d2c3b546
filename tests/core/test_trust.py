"""Configurations that come with a run name classes of this project, Lightning and torch alone."""

import shutil

import pytest
import yaml

import cli
from commands.recipes.document import resolve
from commands.recipes.reading import read_document
from commands.recipes.trusted import check_recipe
from core.errors import UserError
from core.trust import check_trusted
from tests.commands.recipes.test_reading import RECIPES
from tests.conftest import ROOT

OURS = {
    "model": {"class_path": "lightning_modules.DualTransfer", "init_args": {"image_weights": "photo.jpg"}},
    "trainer": {"callbacks": ["callbacks.samples.CaptionSamples", {"class_path": "lightning.pytorch.callbacks.Timer"}]},
}


def test_what_is_ours_is_accepted():
    check_trusted(OURS, "config.yaml")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"model": {"class_path": "subprocess.Popen"}}, "model.class_path"),
        ({"data": "shutil.rmtree"}, "data"),
        ({"trainer": {"callbacks": ["os.path.join"]}}, "trainer.callbacks.0"),
        ({"data": {"init_args": {"source": {"class_path": "tests.conftest.X"}}}}, "data.init_args.source.class_path"),
    ],
)
def test_code_of_others_is_refused_by_its_place(content, place):
    with pytest.raises(UserError, match=rf"config.yaml: {place} names '.*pass --trust"):
        check_trusted(content, "config.yaml")


def test_a_strangers_run_does_not_run_its_code(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    run, mark = tmp_path / "run", tmp_path / "mark"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"x")
    (tmp_path / "stranger_module.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Model: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    content = {
        "model": {"class_path": "stranger_module.Model"},
        "data": {"class_path": "datamodules.scenes.SceneCaptions"},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    for args in (["resume", str(run)], ["test", "--ckpt_path", str(run)], ["predict", "--ckpt_path", str(run)]):
        assert cli.main(args) == 1
        assert "model.class_path names 'stranger_module.Model'" in capsys.readouterr().err
        assert not mark.exists()
    assert cli.main(["resume", str(run), "--trust"]) == 1
    assert mark.exists(), "trusted, it is imported"
    shutil.rmtree(run)


WAYS = ("--trainer.callbacks+=stranger_module.Model", "--trainer=part.yaml", "--config=x.yaml")


@pytest.mark.parametrize("way", WAYS)
def test_a_strangers_recipe_does_not_run_its_code(tmp_path, capsys, monkeypatch, way):
    monkeypatch.chdir(ROOT)
    mark = tmp_path / "mark"
    (tmp_path / "stranger_module.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Model: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    callback = {"class_path": "stranger_module.Model"}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(callback))
    name, _, value = way.partition("=")
    option = f"{name}={tmp_path / value}" if value.endswith(".yaml") else way
    command = ["fit", "--config", "experiments/offline/attention_rnn.yaml", option, "--trainer.fast_dev_run=true"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"about": "x", "stages": {"one": {"command": command}}}))
    words = ["recipe", str(recipe), "--run-dir", str(tmp_path / "runs")]
    assert cli.main(words) == 1
    assert "names 'stranger_module.Model', code that is not of this project" in capsys.readouterr().err
    assert not mark.exists()
    assert not (tmp_path / "runs").exists()
    if name == "--config":
        assert cli.main([*words, "--trust"]) == 1
        assert mark.exists(), "trusted, it is imported"


def test_recipes_of_this_project_need_no_trust():
    for path in RECIPES:
        check_recipe(resolve(read_document(path), path, {}, ROOT / "runs"))


def test_compare_does_not_run_a_strangers_code(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    mark = tmp_path / "mark"
    (tmp_path / "stranger_data.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Data: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    runs = [tmp_path / name for name in ("a", "b")]
    for run in runs:
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump({"data": {"class_path": "stranger_data.Data"}}))
        (run / "metrics.csv").write_text("step,val/bleu4,val/cider_d\n1,0.1,0.2\n")
    assert cli.main(["compare", *map(str, runs), "--out", str(tmp_path / "out"), "--split", "val"]) == 1
    assert "data.class_path names 'stranger_data.Data'" in capsys.readouterr().err
    assert not mark.exists()
