"""A small recipe, and what stands in for the processes of its stages."""

import json
import time
from pathlib import Path

import cli
from commands.recipes import summary

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

    def __call__(self, words, log, *, lock, shown, threads, names):
        run = log.parent
        assert names["WANDB_JOB_TYPE"] == run.name
        assert names["WANDB_TAGS"] == f"{names['WANDB_RUN_GROUP']},{run.name}"
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


def rewrite(name, text):
    return lambda: Path(name).write_text(text)
