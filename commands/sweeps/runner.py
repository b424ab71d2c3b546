"""Runs the trials of a sweep, each a ``fit`` of its own, several at a time."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from commands.recipes.process import StageProcess, cores, end_all
from commands.sweeps.document import Sweep, Value
from commands.sweeps.study import finish, report, suggest, unfinished, value_of
from core.errors import UserError, command
from core.metric_rows import read_metric_rows
from core.text import say

_POLL = 0.3
_FAILURES = 3
"""First trials that may fail before the search gives up: the command is wrong, not the settings."""


@dataclass(slots=True, kw_only=True)
class _Running:
    """A trial that runs."""

    trial: Trial
    run: Path
    process: StageProcess
    values: list[float] = field(default_factory=list)
    read_at: float = 0.0
    pruned: bool = False


class Runner:
    """Runs trials until there are enough.

    Args:
        sweep: what is searched.
        study: chooses settings.
        out: folder of the sweep.
        lock: descriptor that the trials hold open, see `commands.recipes.process.locked`.
        jobs: trials at a time.
    """

    def __init__(self, *, sweep: Sweep, study: optuna.Study, out: Path, lock: int, jobs: int = 1) -> None:
        self.sweep, self.study, self.out, self.lock, self.jobs = sweep, study, out, lock, jobs
        self._cut_off = unfinished(study)
        self._running: list[_Running] = []

    def run(self, trials: int) -> None:
        """Runs until the study has so many trials.

        Raises:
            UserError: the first trials all fail, or log no such metric.
            KeyboardInterrupt: trials that run have saved a checkpoint; the same call resumes them.
        """
        try:
            while self._fill(trials) or self._running:
                time.sleep(_POLL)
                for one in list(self._running):
                    self._look_at(one)
        except BaseException:
            end_all([one.process for one in self._running])
            raise

    def _fill(self, trials: int) -> bool:
        """Starts trials while there is room; whether one was started."""
        started = False
        while len(self._running) < self.jobs and (one := self._next(trials)) is not None:
            self._running.append(self._start(one))
            started = True
        return started

    def _next(self, trials: int) -> Trial | None:
        if self._cut_off:
            return self._cut_off.pop(0)
        waiting = len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
        if len(self.study.get_trials(deepcopy=False)) - waiting >= trials or (
            self.sweep.method == "grid" and not waiting
        ):
            return None
        return self.study.ask()

    def _start(self, trial: Trial) -> _Running:
        run = self.out / "trials" / f"{trial.number:04d}"
        run.parent.mkdir(parents=True, exist_ok=True)
        settings = suggest(self.sweep, trial)
        begun = (run / "config.yaml").is_file()
        words = ["resume", str(run)] if begun else [*self.sweep.words(settings), f"--run_dir={run}"]
        shown = ", ".join(f"{name.rpartition('.')[2]} {_shown(value)}" for name, value in settings.items())
        say(f"trial {trial.number}{' (resumed)' if begun else ''}: {shown}")
        log = run.with_suffix(".log")
        threads = max(1, cores() // self.jobs) if self.jobs > 1 else None
        process = StageProcess(words, log, lock=self.lock, shown=False, threads=threads)
        return _Running(trial=trial, run=run, process=process)

    def _look_at(self, one: _Running) -> None:
        """Reads what a trial has logged, stops it if it is bad, and closes it when it has ended."""
        code = one.process.poll()
        self._read(one)
        if code is None:
            if not one.pruned and report(self.study, one.trial, one.values):
                one.pruned = True
                one.process.interrupt()
            return
        self._running.remove(one)
        report(self.study, one.trial, one.values)
        if one.pruned:
            finish(self.study, one.trial, one.values, pruned=True)
            say(f"trial {one.trial.number}: stopped at {self.sweep.metric} {one.values[-1]:.4g}, others were better")
        elif code != 0:
            self._failed(one, code)
        elif not one.values:
            logged = ", ".join(name for name in self._columns(one) if name.startswith("val/")) or "none"
            finish(self.study, one.trial, (), failed=f"no metric {self.sweep.metric}")
            raise UserError(
                f"trial {one.trial.number} logged no metric '{self.sweep.metric}': expected one of {logged}"
            )
        else:
            finish(self.study, one.trial, one.values)
            say(f"trial {one.trial.number}: {self.sweep.metric} {self._value(one):.4g}")

    def _failed(self, one: _Running, code: int) -> None:
        log = one.run.with_suffix(".log")
        lines = log.read_text("utf-8", "replace").splitlines()
        said = next((line for line in reversed(lines) if line.startswith("error: ")), f"exit code {code}")
        finish(self.study, one.trial, (), failed=said.removeprefix("error: "))
        say(f"trial {one.trial.number}: failed, {said}", err=True)
        ended = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]
        if len(ended) >= _FAILURES and all(trial.state is TrialState.FAIL for trial in ended):
            raise UserError(f"all {len(ended)} trials failed; the last one said: {said}; what it printed is in {log}")

    def _read(self, one: _Running) -> None:
        """Values of the metric so far, those that are numbers."""
        path = one.run / "metrics.csv"
        if not path.is_file() or path.stat().st_mtime == one.read_at:
            return
        one.read_at = path.stat().st_mtime
        columns, rows = read_metric_rows(path)
        if self.sweep.metric in columns:
            found = [float(row[self.sweep.metric]) for row in rows if row[self.sweep.metric]]
            one.values = [value for value in found if math.isfinite(value)]

    def _columns(self, one: _Running) -> Sequence[str]:
        path = one.run / "metrics.csv"
        return read_metric_rows(path)[0] if path.is_file() else ()

    def _value(self, one: _Running) -> float:
        found = value_of(self.study, self.study.get_trials(deepcopy=False)[one.trial.number])
        assert found is not None
        return found


def again(path: Path, out: Path, trials: int) -> str:
    """The command that goes on with a sweep."""
    return command("sweep", path, "--out", out, "--trials", trials)


def _shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
