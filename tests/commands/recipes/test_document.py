"""Reading recipes: combinations of stages, one line for every mistake."""

from pathlib import Path

import pytest

from tests.commands.recipes.fakes import RECIPE, error_of, recipe


def test_a_stage_for_every_combination(stages, capsys):
    Path("r.yaml").write_text(
        """
vars: {depths: 2}
stages:
  A${n}B${plus}:
    for: {n: [0, 1], plus: ["", "+"]}
    command: fit --config other.yaml --depth=${n} --depths=${depths} --text='${oc.env:NOWHERE_SET,a b}' --raw=$${x.y}
  test_${n}:
    for: {n: [0, 1]}
    command: [test, --ckpt_path, "${A${n}B+.run}"]
  all:
    command: compare ${A*B.run} --out ${run}
"""
    )
    assert recipe(stages) == ["A0B", "A0B+", "A1B", "A1B+", "test_0", "test_1", "all"]
    words = dict(zip(stages.ran, stages.words, strict=True))
    assert words["A1B+"][3:7] == ["--depth=1", "--depths=2", "--text=a b", "--raw=${x.y}"]
    assert words["test_1"] == ["test", "--ckpt_path", "runs/A1B+", "--run_dir", "runs/test_1"]
    assert words["all"] == ["compare", "runs/A0B", "runs/A1B", "--out", "runs/all"]
    capsys.readouterr()
    recipe(stages, "--list")
    assert "A0B, A1B" in capsys.readouterr().out.replace("all <- ", "")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("inputs:", "inptus:", "stage 'labels': 'inptus' is unknown: did you mean 'inputs'?"),
        ("stages:", "stage:", "expected a mapping with 'stages'"),
        ("command: fit --config other", "command: fitt --config other", "no command 'fitt': did you mean 'fit'?"),
        ("${labels.run}", "${labelz.run}", "'${labelz.run}' is unknown: did you mean 'labels.run'?"),
        ("${lr}", "${lrr}", "'${lrr}' is unknown: did you mean 'lr'?"),
        ("teacher.yaml --model", "${student.run} --model", "in a cycle: teacher -> student -> teacher"),
        ("  other:", "  teacher:", "'teacher' is there twice"),
        ("  other:", "  a/b:", "stage 'a/b': the name is no folder's"),
        ("lr: 0.1", "lr: ${oc.env:NOWHERE_SET}", "the environment has no NOWHERE_SET"),
        ("extra.csv", "extar.csv", "stage 'labels': its input 'extar.csv' does not exist"),
        ("[metrics.json]", "[metrics.json]\nsummary: {rows: [tset]}", "no stage 'tset': did you mean 'test'?"),
        ("[metrics.json]", "[metrics.json]\nsummary: {compare: [test]}", "expected pairs such as [[a, b]]"),
        (
            "[metrics.json]",
            "[metrics.json]\nsummary: {compare: [[test, 'floor: constant caption']]}",
            "no stage 'floor: constant caption'",
        ),
        ("[extra.csv]", "[extra.csv]\n    after: [studnt]", "no stage 'studnt': did you mean 'student'?"),
        ("vars:", "vars: [", "line"),
        ("--config other.yaml", "--config 'other.yaml", "cannot be split into arguments"),
        ("command: test --ckpt", "command: resume --ckpt", "'resume' cannot be a stage"),
        ("lr: 0.1", "run: 0.1", "'run' cannot be a name"),
        ("command: predict --ckpt_path ${teacher.run}", "cmd: predict", "stage 'labels': expected a 'command'"),
    ],
)
def test_mistakes_in_the_file_are_one_line(stages, capsys, old, new, expected):
    assert old in RECIPE
    Path("r.yaml").write_text(RECIPE.replace(old, new))
    assert expected in error_of(capsys)
