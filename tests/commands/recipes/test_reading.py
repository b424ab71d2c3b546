"""Recipe files: what recipes extend and what stages inherit, and the recipes of this repository."""

import itertools
from pathlib import Path

import pytest

from commands.recipes.document import resolve
from commands.recipes.reading import read_document
from core.errors import UserError
from tests.conftest import ROOT

RECIPES = sorted(path for path in (ROOT / "experiments" / "recipes").rglob("*.yaml") if path.parent.name != "parts")
BASE = """
vars: {seed: 1, lr: 0.1}
groups:
  train:
    command: fit --config a.yaml --lr=${lr}
    inputs: [a.csv]
stages:
  first:
    extends: train
summary: {metrics: [bleu4], rows: [first]}
"""
RECIPE = """
extends: base.yaml
vars: {lr: 0.2}
groups:
  slow:
    extends: train
    command: --slow=true --run=${first.run}
  listed:
    command: [fit, --text, "a b"]
stages:
  ${name}:
    extends: slow
    for: {name: [x, y]}
    command: --name=${name}
    inputs: [b.csv]
  as_it_is:
    extends: slow
  words:
    extends: listed
    command: --more 1
summary: {rows: [x]}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("r.yaml").write_text(RECIPE)


def commands(path="r.yaml", **given):
    """Name to words, without --run_dir."""
    recipe = resolve(read_document(Path(path)), Path(path), given, Path("runs"))
    return {stage.name: list(stage.key) for stage in recipe.stages}


@pytest.mark.usefixtures("files")
def test_words_of_the_group_come_before_those_of_the_stage():
    first, slow = ["fit", "--config", "a.yaml", "--lr=0.2"], ["--slow=true", "--run=RECIPE/first"]
    assert commands() == {
        "first": first,
        "x": [*first, *slow, "--name=x"],
        "y": [*first, *slow, "--name=y"],
        "as_it_is": [*first, *slow],
        "words": ["fit", "--text", "a b", "--more", "1"],
    }
    assert commands(lr="3")["x"][3] == "--lr=3"
    assert commands("base.yaml") == {"first": ["fit", "--config", "a.yaml", "--lr=0.1"]}


@pytest.mark.usefixtures("files")
def test_own_entries_replace_inherited_ones():
    recipe = resolve(read_document(Path("r.yaml")), Path("r.yaml"), {}, Path("runs"))
    inputs = {stage.name: stage.inputs for stage in recipe.stages}
    assert inputs == {"first": ("a.csv",), "x": ("b.csv",), "y": ("b.csv",), "as_it_is": ("a.csv",), "words": ()}
    assert (recipe.summary.rows, recipe.summary.metrics) == (("x",), ("bleu4",))


@pytest.mark.usefixtures("files")
def test_group_is_filled_in_with_the_stages_of_the_recipe_that_extends_it():
    Path("r.yaml").write_text("extends: base.yaml\ngroups: {train: {command: test --ckpt_path RUN}}\n")
    assert commands() == {"first": ["test", "--ckpt_path", "RUN"]}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("extends: listed", "extends: listd", "r.yaml: stage 'words': extends: there is no group 'listd': did you"),
        ("extends: train", "extends: trian", "r.yaml: group 'slow': extends: there is no group 'trian': did you"),
        ("extends: train", "extends: slow", "r.yaml: group 'slow': groups extend each other in a cycle: slow -> slow"),
        ("extends: base.yaml", "extends: bas.yaml", "there is no recipe 'bas.yaml'"),
        ("extends: base.yaml", "extends: r.yaml", "r.yaml: extends: recipes extend each other in a cycle"),
        ("extends: base.yaml", "extends: [base.yaml, 3]", "r.yaml: extends: expected the file of a recipe"),
        ("name: [x, y]", "name: '${lr}'", "r.yaml: stage '${name}': for: expected 'name: [value, ...]', found 0.2"),
        ("name: [x, y]", "name: '${names}'", "r.yaml: stage '${name}': for: '${names}' is unknown"),
        ("name: [x, y]", "lr: [x, y]", "for: 'lr' is a variable of the recipe: take another name"),
        ("command: [fit,", "comand: [fit,", "r.yaml: group 'listed': 'comand' is unknown: did you mean 'command'?"),
        ('[fit, --text, "a b"]', "{fit: 1}", "r.yaml: stage 'words': command: expected a string or a list of strings"),
        ('[fit, --text, "a b"]', '"fit \'a"', "r.yaml: stage 'words': command: cannot be split into arguments"),
        (
            "  listed:\n    command:",
            "  listed: 3\n  o:\n    command:",
            "r.yaml: group 'listed': expected a 'command'",
        ),
        ("groups:", "groups: 3\nvars:", "is there twice"),
    ],
)
def test_mistakes_name_file_and_place_in_one_line(old, new, expected):
    assert old in RECIPE
    Path("r.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(UserError) as error:
        commands()
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("files")
def test_last_of_several_extended_recipes_wins():
    Path("other.yaml").write_text("vars: {lr: 0.3}\ngroups: {train: {command: 'test --ckpt_path ${lr}'}}\n")
    Path("r.yaml").write_text("extends: [base.yaml, other.yaml]\n")
    assert commands() == {"first": ["test", "--ckpt_path", "0.3"]}
    Path("r.yaml").write_text("extends: [other.yaml, base.yaml]\n")
    assert commands() == {"first": ["fit", "--config", "a.yaml", "--lr=0.1"]}


@pytest.mark.usefixtures("files")
def test_stages_can_be_listed_in_a_variable():
    Path("r.yaml").write_text(
        RECIPE.replace("[x, y]", "'${names}'").replace("{lr: 0.2}", "{lr: 0.2, names: [x, null]}")
    )
    assert {"x", "null"} <= commands().keys()
    assert {"first", "as_it_is", "words", "x"} == commands(names="[x]").keys()


@pytest.mark.usefixtures("files")
def test_stage_without_any_command_is_refused():
    Path("r.yaml").write_text("groups: {empty: {inputs: [a]}}\nstages: {a: {extends: empty}}\n")
    with pytest.raises(UserError, match="stage 'a': expected a 'command'"):
        commands()


def test_recipes_are_there():
    names = {str(path.relative_to(ROOT / "experiments" / "recipes")) for path in RECIPES}
    # the published settings are of full size; the stages of their recipes have twins in the other recipes
    names = {name for name in names if not name.endswith("_as_published.yaml")}
    online = {name for name in names if "/" not in name}
    # they compare on real captions; minutes, no hub
    real_only = {
        "ucm_attention_rnn.yaml",
        "ucm_self_critical.yaml",
        "socratis_captions.yaml",
        "socratis_reasons.yaml",
    }
    assert {name for name in online if f"offline/{name}" not in names} == real_only
    scenes_only = {"where_and_how_many.yaml"}  # only of scenes is it known what captions get right
    assert {name.removeprefix("offline/") for name in names - online} - online == scenes_only


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "experiments")))
def test_recipe_resolves_and_names_files_that_exist(path):
    for words in commands(path).values():
        for before, word in itertools.pairwise(words):
            if before == "--config":
                assert (ROOT / word).is_file(), word


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "experiments")))
def test_only_recipes_on_scenes_ask_for_what_is_true_of_scenes(path):
    """A column that no stage has would make the table fall back to the usual ones."""
    recipe = resolve(read_document(path), path, {}, Path("runs"))
    on_scenes = any("scenes" in word or "/offline/" in word for stage in recipe.stages for word in stage.key)
    assert on_scenes or not [name for name in recipe.summary.metrics if name.startswith("fact_")]


@pytest.mark.parametrize("path", [path for path in RECIPES if "scale:" in path.read_text()], ids=lambda path: path.stem)
def test_scale_is_one_variable(path):
    assert "=cpu" in str(commands(path, scale="cpu")) or "/cpu/" in str(commands(path, scale="cpu"))
    large = commands(path, scale="gpu")
    assert "cpu" not in str(large)
    configs = {word for words in large.values() for word in words if word.startswith("experiments/overlays/")}
    assert all((ROOT / config).is_file() for config in configs)
