"""Recipes: what is up to date is skipped, what changed runs again with all that needs it, what broke goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback

import cli
from commands.recipes import engine, process, summary
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder

RECIPE = """
vars:
  seed: 1
  lr: 0.1
stages:
  teacher:
    command: fit --config teacher.yaml --model.lr=${lr} --wandb=off
  other:
    command: fit --config other.yaml --seed_everything=${seed}
  labels:
    command: predict --ckpt_path ${teacher.run}
    inputs: [extra.csv]
  student:
    command: [fit, --config, student.yaml, "--model.init_from=${teacher.run}", "--data.labels=${labels.run}"]
  test:
    command: test --ckpt_path=${student.run}
    outputs: [metrics.json]
"""
ALL = ["teacher", "other", "labels", "student", "test"]
DRAW = summary.draw


class Process:
    """Stands in for a stage's process: it has ended when it was looked at so many times."""

    def __init__(self, code, looks):
        self.code, self.looks = code, looks

    def poll(self):
        self.looks -= 1
        return None if self.looks > 0 else self.code


class Stages:
    """Stands in for the processes of stages: notes them, and writes what such commands write."""

    def __init__(self):
        self.ran, self.words, self.codes, self.looks, self.together, self.threads = [], [], {}, {}, [], []

    def __call__(self, words, log, lock, shown, threads):
        run = log.parent
        assert shown == (threads is None)
        self.threads.append(threads)
        states = {path.parent.name: json.loads(path.read_text())["status"] for path in run.parent.glob("*/stage.json")}
        self.together.append({name for name, status in states.items() if status == "running"})
        self.ran.append(run.name)
        self.words.append(list(words))
        if words[0] in ("fit", "resume"):
            (run / "checkpoints").mkdir(exist_ok=True)
            (run / "config.yaml").write_text("{}")
            (run / "checkpoints" / "last.ckpt").write_text(f"{run.name} {time.monotonic_ns()}")
        code = self.codes.get(run.name, 0)
        log.write_text("error: it is broken\n" if code else "fine\n")
        if not code and words[0] == "test":
            score = {
                "this model": {"bleu4": float(run.parent.name.removeprefix("seed-") == "3") * 2 + 1},
                "constant caption": {"bleu4": 0.1},
            }
            (run / "metrics.json").write_text(json.dumps(score))
        return Process(code, self.looks.get(run.name, 1))


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "other", "student"):
        Path(f"{name}.yaml").write_text(f"# a comment\nmodel: {{name: {name}}}\ndata: {{root: data/{name}.csv}}\n")
        Path("data").mkdir(exist_ok=True)
        Path(f"data/{name}.csv").write_text(name)
    Path("extra.csv").write_text("a,b\n")
    Path("r.yaml").write_text(RECIPE)
    fake = Stages()
    monkeypatch.setattr(engine, "StageProcess", fake)
    monkeypatch.setattr(summary, "draw", lambda *_: None)  # a second each; drawn in one test
    return fake


def recipe(stages, *options, file="r.yaml"):
    """Runs the recipe; returns the names of the stages that ran."""
    stages.ran.clear()
    stages.words.clear()
    assert cli.main(["recipe", file, "--run_dir", "runs", *options]) == 0
    return list(stages.ran)


def error_of(capsys, *options, file="r.yaml"):
    """Runs a recipe that must fail; returns its one line."""
    capsys.readouterr()
    assert cli.main(["recipe", file, "--run_dir", "runs", *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def snapshot(folder):
    return {str(path): path.stat().st_mtime_ns for path in sorted(Path(folder).rglob("*"))}


def test_runs_once_in_order_and_then_nothing(stages, capsys):
    assert recipe(stages) == ALL
    assert stages.words[0] == [
        "fit",
        "--config",
        "teacher.yaml",
        "--model.lr=0.1",
        "--wandb=off",
        "--run_dir",
        "runs/seed-1/teacher",
    ]
    assert stages.words[3][3] == "--model.init_from=runs/seed-1/teacher"
    capsys.readouterr()
    assert recipe(stages) == []
    out = capsys.readouterr().out
    assert out.count("skipped: nothing that it depends on changed since") == len(ALL)
    assert "constant caption" in out


def rewrite(name, text):
    return lambda: Path(name).write_text(text)


@pytest.mark.parametrize(
    ("change", "again", "reason"),
    [
        (rewrite("other.yaml", "model: {name: new}\n"), ["other"], "other.yaml changed"),
        (rewrite("student.yaml", "model: {name: new}\n"), ["student", "test"], "student.yaml changed"),
        (rewrite("data/student.csv", "new"), ["student", "test"], "data/student.csv changed"),
        (rewrite("extra.csv", "c,d\n"), ["labels", "student", "test"], "extra.csv changed"),
        (rewrite("teacher.yaml", "{}"), ["teacher", "labels", "student", "test"], "'teacher' ran again"),
        (rewrite("r.yaml", RECIPE.replace("0.1", "0.2")), ["teacher", "labels", "student", "test"], "lr=0.1' became"),
        (rewrite("runs/seed-1/student/checkpoints/last.ckpt", "x"), ["test"], "last.ckpt changed"),
        (lambda: Path("runs/seed-1/test/metrics.json").unlink(), ["test"], "its output 'metrics.json' is gone"),
        (rewrite("teacher.yaml", "model: {name: teacher}\ndata: {root: data/teacher.csv}  # new\n"), [], "skipped"),
        (rewrite("r.yaml", RECIPE.replace("--wandb=off", "--wandb online")), [], "skipped"),
        (lambda: os.utime("extra.csv"), [], "skipped"),
    ],
)
def test_a_changed_input_runs_exactly_what_depends_on_it(stages, capsys, change, again, reason):
    recipe(stages)
    change()
    capsys.readouterr()
    assert recipe(stages, "--dry-run") == []
    planned = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "would run" in line.split(":")[0]]
    assert planned == again
    assert recipe(stages) == again
    assert reason in capsys.readouterr().out
    assert recipe(stages) == []


def test_input_edited_while_the_stage_runs_counts_as_changed(stages, monkeypatch):
    def edits(words, log, lock, shown, threads):
        Path("other.yaml").write_text("model: {name: while it ran}\n")
        return stages(words, log, lock, shown, threads)

    monkeypatch.setattr(engine, "StageProcess", edits)
    recipe(stages, "--stages", "other")
    monkeypatch.setattr(engine, "StageProcess", stages)
    assert recipe(stages, "--stages", "other") == ["other"]


def test_nothing_is_overwritten(stages):
    recipe(stages)
    first = Path("runs/seed-1/other/checkpoints/last.ckpt").read_text()
    for number in (1, 2):
        assert recipe(stages, "--force", "other") == ["other"]
        assert (Path("runs/seed-1") / f"other.old-{number}" / "stage.json").is_file()
    assert Path("runs/seed-1/other.old-1/checkpoints/last.ckpt").read_text() == first


def test_failed_stage_stops_the_recipe_and_goes_on_after_mending(stages, capsys):
    stages.codes["labels"] = 3
    message = error_of(capsys)
    assert "stage 'labels' failed (exit code 3: it is broken)" in message
    assert "go on with: python cli.py recipe r.yaml --run-dir runs" in message
    assert stages.ran == ["teacher", "other", "labels"]
    stages.codes.clear()
    assert recipe(stages) == ["labels", "student", "test"]


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_broken_fit_goes_on_from_its_checkpoint(stages, status):
    recipe(stages)
    state = engine.read_state(Path("runs/seed-1/student"))
    engine.write_state(Path("runs/seed-1/student"), {**state, "status": status})
    assert recipe(stages) == ["student", "test"]  # its checkpoint is another one now
    assert stages.words[0] == ["resume", "runs/seed-1/student"]
    engine.write_state(Path("runs/seed-1/student"), {**state, "status": status})
    Path("student.yaml").write_text("model: {name: mended}\n")
    assert recipe(stages) == ["student", "test"]
    assert stages.words[0][0] == "fit"  # from its beginning: it would be another experiment
    assert Path("runs/seed-1/student.old-1").is_dir()


@pytest.mark.parametrize(("goes_on", "kept"), [("true", False), ("false", True)])
def test_other_commands_go_on_when_the_recipe_says_so(stages, goes_on, kept):
    text = RECIPE.replace("inputs: [extra.csv]", f"goes_on: {goes_on}")
    Path("r.yaml").write_text(text)
    recipe(stages)
    state = engine.read_state(Path("runs/seed-1/labels"))
    engine.write_state(Path("runs/seed-1/labels"), {**state, "status": "running"})
    recipe(stages, "--stages", "labels")
    assert stages.ran == ["labels"]
    assert Path("runs/seed-1/labels.old-1").exists() == kept


def test_stage_that_does_not_write_its_output_fails(stages, capsys):
    Path("r.yaml").write_text(RECIPE.replace("inputs: [extra.csv]", "outputs: [rows.parquet]"))
    assert "did not write 'rows.parquet'" in error_of(capsys)


def test_choosing_stages(stages, capsys):
    assert recipe(stages, "--only", "teacher,oth*") == ["teacher", "other"]
    assert "stage 'student' needs 'labels', which never ran" in error_of(capsys, "--stages", "student")
    recipe(stages)
    assert recipe(stages, "--from", "labels", "--force", "*") == ["labels", "student", "test"]
    Path("teacher.yaml").write_text("{}")
    assert recipe(stages, "--from", "student") == []


def test_dry_run_changes_nothing(stages, capsys):
    recipe(stages, "--dry-run")
    assert not Path("runs").exists()
    out = capsys.readouterr().out
    assert "student  would run: it never ran" in out
    assert "needs teacher, labels" in out
    recipe(stages)
    Path("other.yaml").write_text("{}")
    before = snapshot("runs")
    recipe(stages, "--dry-run", "--force", "test")
    assert snapshot("runs") == before


def test_recipe_folder_may_be_moved(stages):
    recipe(stages)
    Path("runs").rename("moved")
    stages.ran.clear()
    assert cli.main(["recipe", "r.yaml", "--run-dir", "moved"]) == 0
    assert stages.ran == []


def test_seeds_have_folders_of_their_own_and_one_table(stages, capsys, monkeypatch):
    monkeypatch.setattr(summary, "draw", DRAW)
    assert recipe(stages, "--seed", "1,3") == ALL * 2
    assert "--seed_everything=3" in stages.words[6]
    out = capsys.readouterr().out
    assert "mean and standard deviation of 2 seeds" in out
    assert "2.000 ± 1.414" in out
    assert json.loads(Path("runs/summary.json").read_text())["stages"]["test"] == {"bleu4": [1.0, 3.0]}
    assert Path("runs/summary.png").stat().st_size > 5000
    assert recipe(stages, "--seed", "3", "--set", "lr=0.1") == []
    assert recipe(stages, "--set", "lr=0.5", "--stages", "teacher") == ["teacher"]


def test_stages_below_a_baseline_are_flagged(stages, capsys, monkeypatch):
    score = {"this model": {"cider_d": 0.4}, "constant caption": {"cider_d": 0.5}}
    read = summary.read_metrics
    monkeypatch.setattr(summary, "read_metrics", lambda run: score if run.name == "test" else read(run))
    recipe(stages)
    out = capsys.readouterr().out
    assert "test ▾" in out
    assert "▾ test is BELOW A BASELINE: cider_d 0.400 does not beat constant caption (0.500)" in out


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
        ("teacher.yaml --model", "${student.run} --model", "in a circle: teacher -> student -> teacher"),
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
        ("--config other.yaml", "--config 'other.yaml", "cannot be split into words"),
        ("command: test --ckpt", "command: resume --ckpt", "'resume' cannot be a stage"),
        ("lr: 0.1", "run: 0.1", "'run' cannot be a name"),
        ("command: predict --ckpt_path ${teacher.run}", "cmd: predict", "stage 'labels': expected a 'command'"),
    ],
)
def test_mistakes_in_the_file_are_one_line(stages, capsys, old, new, expected):
    assert old in RECIPE
    Path("r.yaml").write_text(RECIPE.replace(old, new))
    assert expected in error_of(capsys)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--stages", "teachex"], "--stages teachex: r.yaml has no such stage: did you mean 'teacher'?"),
        (["--from", "teachex"], "did you mean 'teacher'?"),
        (["--force", "nothing*"], "--force nothing*"),
        (["--set", "lrr=1"], "no variable 'lrr': did you mean 'lr'?"),
        (["--set", "lr"], "--set lr: expected NAME=VALUE"),
        (["--seed", "one"], "--seed one: expected whole numbers"),
        (["--dry"], "unrecognized arguments: --dry"),
    ],
)
def test_mistakes_in_the_options_are_one_line(stages, capsys, options, expected):
    assert expected in error_of(capsys, *options)
    assert not Path("runs").exists()


def test_no_such_recipe(stages, capsys):
    Path("experiments/recipes").mkdir(parents=True)
    Path("experiments/recipes/emotion.yaml").write_text(RECIPE)
    message = error_of(capsys, file="experiments/recipes/emotions.yaml")
    assert "did you mean 'experiments/recipes/emotion.yaml'?" in message


def test_the_way_on_is_the_whole_command(stages, capsys):
    stages.codes = {"labels": 1}
    options = ["--seed", "1,2", "--stages", "teacher,labels"]
    assert error_of(capsys, *options).endswith(
        "go on with: python cli.py recipe r.yaml --run-dir runs --seed 1,2 --stages teacher,labels"
    )


def test_interrupted_stages_share_one_minute(monkeypatch):
    """However many do not end, and one that has ended is not waited for."""
    monkeypatch.setattr(process, "_PATIENCE", 0.3)
    heard = []

    class Stubborn:
        def __init__(self, name):
            self.name = name

        def poll(self):
            return None

        def interrupt(self):
            heard.append(f"interrupt {self.name}")

        def kill(self):
            heard.append(f"kill {self.name}")

    begun = time.monotonic()
    process.end_all([Stubborn("a"), Stubborn("b"), Stubborn("c")])
    assert time.monotonic() - begun < 0.6
    assert heard == [f"{what} {name}" for what in ("interrupt", "kill") for name in "abc"]


# several at a time


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(engine, "_GLANCE", 0.0)


@pytest.mark.usefixtures("quick")
def test_stages_run_at_the_same_time_once_their_needs_are_done(stages, monkeypatch, capsys):
    monkeypatch.setattr(engine, "cores", lambda: 8)
    stages.looks = {"other": 50, "teacher": 3}
    assert recipe(stages, "--jobs", "2") == ALL
    assert stages.together == [
        {"teacher"},
        {"teacher", "other"},
        {"labels", "other"},
        {"student", "other"},
        {"test", "other"},
    ]
    assert stages.threads == [4] * 5
    assert {engine.read_state(Path("runs/seed-1") / name)["status"] for name in ALL} == {"done"}
    assert recipe(stages, "--jobs", "2") == []
    assert "error: --jobs 0: expected 1 or more" in error_of(capsys, "--jobs", "0")


@pytest.mark.usefixtures("quick")
def test_failure_lets_the_others_that_run_end_and_starts_no_more(stages, capsys):
    stages.codes, stages.looks = {"teacher": 1, "other": 2}, {"other": 20}
    assert cli.main(["recipe", "r.yaml", "--run_dir", "runs", "--jobs", "3"]) == 1
    said, message = capsys.readouterr()
    assert "stage 'teacher' failed" in said, "one hears of it while the others still run"
    assert said.index("stage 'teacher' failed") < said.index("waiting for 'other'")
    assert "stage 'teacher' failed" in message
    assert "also: stage 'other' failed" in message
    assert message.strip().endswith("python cli.py recipe r.yaml --run-dir runs --jobs 3")
    assert stages.ran == ["teacher", "other"]
    assert engine.read_state(Path("runs/seed-1/other"))["status"] == "failed"
    stages.codes, stages.looks = {"teacher": 1}, {"other": 20}
    error_of(capsys, "--jobs", "3")
    assert engine.read_state(Path("runs/seed-1/other"))["status"] == "done"
    stages.codes = {}
    assert recipe(stages, "--jobs", "3") == ["teacher", "labels", "student", "test"]


# processes


def test_two_calls_do_not_work_in_one_folder(stages, capsys, monkeypatch):
    monkeypatch.setattr(process, "_WAIT", 0.0)
    with process.locked(Path("runs/seed-1")):
        assert "a call of this recipe is running in 'runs/seed-1'" in error_of(capsys)
    assert recipe(stages) == ALL


def test_output_is_shown_and_kept(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("stages: {score: {command: score nowhere.json references.json}}")
    message = error_of(capfd)
    assert "stage 'score' failed (exit code 1: nowhere.json: no such file" in message
    log = Path("runs/score/stage.log").read_text().splitlines()
    assert log[0].endswith("python cli.py score nowhere.json references.json")
    assert log[1].startswith("error: nowhere.json")
    assert engine.read_state(Path("runs/score"))["status"] == "failed"


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_recipe_ends_its_stage_and_says_how_to_go_on(tmp_path, monkeypatch, capfd, jobs):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("waits")
    os.mkfifo("also")
    more = ", another: {command: score also also}" if jobs == 2 else ""
    Path("r.yaml").write_text(f"stages: {{score: {{command: score waits waits}}{more}}}")
    over = threading.Event()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored

    def interrupt():
        with Path("waits").open("w"), Path("also" if jobs == 2 else os.devnull).open("w"):  # once the stages read them
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(60)  # the stage goes on reading, however slow the machine is

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    more_options = ["--jobs", "2"] if jobs == 2 else []
    assert cli.main(["recipe", "r.yaml", "--run-dir", "runs", *more_options]) == 130
    over.set()
    thread.join()
    message = capfd.readouterr().err.splitlines()[-1]
    where, again = ("s 'score', 'another'", " --jobs 2") if jobs == 2 else (" 'score'", "")
    assert f"interrupted in stage{where}; go on with: python cli.py recipe r.yaml --run-dir runs{again}" in message
    assert engine.read_state(Path("runs/score"))["status"] == "interrupted"
    assert jobs == 1 or engine.read_state(Path("runs/another"))["status"] == "interrupted"


def test_log_keeps_what_a_terminal_shows_in_the_end(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = process.LogText(file)
        for chunk in (
            b"\x1b[31mred\x1b[0m\r\nepoch 1 10%\r\x1b[2Kepoch 1 50%\r\x1b[2Kepoch 1",
            b" 99%\r\nval 1%\x1b[",
            b"1A\x1b[2K\rboth done\r\nend",
        ):
            log.feed(chunk)
        log.close()
    assert path.read_text() == "red\nboth done\nend\n"


class KillRecipe(Callback):
    """Kills the process of the recipe, as a power cut would, in the middle of a stage."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """After as many batches as KILL_RECIPE_AFTER says; the stage itself must not live on."""
        limit = os.environ.get("KILL_RECIPE_AFTER")
        if limit and trainer.fit_loop.epoch_loop.total_batch_idx + 1 >= int(limit):
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(30)
            Path(os.environ["KILL_RECIPE_ALIVE"]).touch()


def test_killed_recipe_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data"))
    config.write_text(config.read_text().replace("tests.tiny.KillAfter", "tests.commands.test_recipe.KillRecipe"))
    alone, runs = tmp_path / "alone", tmp_path / "runs"
    assert cli.main(["fit", "--config", str(config), "--run_dir", str(alone), "--wandb=off"]) == 0
    words = ["fit", "--config", str(config), "--wandb=off", "--checkpoint_steps=2"]
    (tmp_path / "r.yaml").write_text(json.dumps({"stages": {"model": {"command": words}}}))
    command = ["recipe", str(tmp_path / "r.yaml"), "--run_dir", str(runs)]
    environment = {**os.environ, "KILL_RECIPE_AFTER": "10", "KILL_RECIPE_ALIVE": str(tmp_path / "alive")}
    killed = subprocess.run([sys.executable, "cli.py", *command], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert engine.read_state(runs / "model")["status"] == "running"
    assert cli.main(command) == 0
    assert not (tmp_path / "alive").exists()
    log = (runs / "model" / "stage.log").read_text()
    assert "python cli.py resume" in log
    assert "resumed at step 8" in log
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (alone, runs / "model"))
    assert one["global_step"] == other["global_step"]
    assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    assert (alone / "predictions.json").read_bytes() == (runs / "model" / "predictions.json").read_bytes()


# the project's own


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "recipes").rglob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_the_project_are_whole(monkeypatch, capsys, tmp_path, path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CAPTION_DATA", "/data")
    assert re.search(r"# Command: .*python cli.py recipe experiments/recipes/", path.read_text())
    assert cli.main(["recipe", str(path.relative_to(ROOT)), "--list", "--run_dir", str(tmp_path)]) == 0
    for config in re.findall(r"--config[= ](\S+)", capsys.readouterr().out):
        assert Path(config).is_file(), f"{path}: {config} is not there"
