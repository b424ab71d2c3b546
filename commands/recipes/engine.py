"""Decides which stages have to run, and runs them.

Each stage's folder has a ``stage.json``: the stage's fingerprint, taken *before* it started, and how it ended. The file
is written atomically before and after every stage, so it stays true whenever the process is killed.
"""

import fnmatch
import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from commands.recipes.document import Recipe, Stage
from commands.recipes.inputs import Digests, differences, fingerprint
from commands.recipes.process import StageProcess, cores, end_all
from commands.recipes.reading import near
from commands.stage_state import State, read_state, write_state
from core.checkpoints import is_checkpoint
from core.errors import UserError

LOG = "stage.log"
_TAIL = 65536
"""Bytes at the end of a log that are searched for the reason of a failure."""
_GLANCE = 0.05
"""Seconds between two checks of the running stages."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a stage.

    Attributes:
        action: "skip"; "start" in a fresh folder; "resume" a fit from its last checkpoint; "repeat" the command in
            the folder of the interrupted run; "leave": it was not selected.
        reason: why.
    """

    action: Literal["skip", "start", "resume", "repeat", "leave"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The stages selected on the command line.

    Attributes:
        stages: names or patterns of the stages to run; empty: all.
        start: first stage to run; None: the first of the recipe.
        force: names or patterns of stages to run even when they are up to date.
    """

    stages: tuple[str, ...] = ()
    start: str | None = None
    force: tuple[str, ...] = ()

    def check(self, recipe: Recipe) -> None:
        """Checks that all names are known.

        Raises:
            UserError: one is not.
        """
        names = [stage.name for stage in recipe.stages]
        given = {"--stages": self.stages, "--from": (self.start,) if self.start else (), "--force": self.force}
        for option, patterns in given.items():
            for pattern in patterns:
                if not fnmatch.filter(names, pattern):
                    raise UserError(f"{option} {pattern}: {recipe.path} has no such stage{near(pattern, names)}")

    def chosen(self, recipe: Recipe) -> set[str]:
        """Names of the stages to run."""
        names = [stage.name for stage in recipe.stages]
        first = next((i for i, name in enumerate(names) if self.start and fnmatch.fnmatch(name, self.start)), 0)
        return {name for name in names[first:] if not self.stages or _fits(name, self.stages)}


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A stage that is running.

    Attributes:
        stage: the stage.
        title: how messages name it.
        state: its ``stage.json``.
        begun: start time, monotonic clock, seconds.
        process: its process.
    """

    stage: Stage
    title: str
    state: State
    begun: float
    process: StageProcess


@dataclass(slots=True, kw_only=True)
class Engine:
    """Runs the stages of a recipe in order.

    Attributes:
        recipe: the resolved recipe.
        choice: the selected stages.
        again: command line that resumes the recipe.
        say: prints a line.
        digests: digests of input files.
        jobs: number of stages that run at the same time; a stage waits for those that it needs.
        waiting: stages that would run, found by a dry run.
    """

    recipe: Recipe
    choice: Choice
    again: str
    say: Callable[[str], None]
    digests: Digests
    jobs: int = 1
    waiting: set[str] = field(default_factory=set)

    def plan(self) -> None:
        """Prints what would be done with every stage and why, without doing it."""
        chosen = self.choice.chosen(self.recipe)
        width = max(len(stage.name) for stage in self.recipe.stages)
        for number, stage in enumerate(self.recipe.stages, start=1):
            decision = self.decide(stage, stage.name in chosen)
            does = {"skip": "is skipped", "leave": "is left", "start": "would run", "resume": "would resume"}
            self.say(f"{number:3} {stage.name:<{width}}  {does.get(decision.action, 'would run')}: {decision.reason}")
            if stage.needs:
                self.say(f"{'':{width + 6}}needs {', '.join(stage.needs)}")
            if decision.action not in ("skip", "leave"):
                self.waiting.add(stage.name)
                self.say(f"{'':{width + 6}}python cli.py {shlex.join(stage.command)}")

    def run(self, lock: int) -> None:
        """Runs the stages that have to run.

        Args:
            lock: descriptor of the folder's lock.

        Raises:
            UserError: a stage failed, or a stage that is needed has no result.
            KeyboardInterrupt: Ctrl-C; the message names the command that resumes it.
        """
        running: list[Job] = []
        begun = time.monotonic()
        try:
            self._run_all(running, lock)
        except BaseException as error:  # whatever it is, no stage is left alone
            where = f" in stage{'s' if len(running) > 1 else ''} {_names([job.stage.name for job in running])}"
            end_all([job.process for job in running])
            for job in running:
                _note_end(job, "done" if job.process.poll() == 0 and not _lost(job.stage) else "interrupted")
            if not isinstance(error, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt(f"interrupted{where if running else ''}; resume with: {self.again}") from None
        self.say(f"this call took {duration(time.monotonic() - begun)}")

    def _run_all(self, running: list[Job], lock: int) -> None:
        """Starts each stage once those it needs are done; `running` holds the running ones."""
        chosen, pending = self.choice.chosen(self.recipe), list(self.recipe.stages)
        places = {stage.name: place for place, stage in enumerate(self.recipe.stages, start=1)}
        try:
            while pending or running:
                unfinished = {stage.name for stage in pending} | {job.stage.name for job in running}
                ready = next((stage for stage in pending if unfinished.isdisjoint(stage.needs)), None)
                if ready is None or len(running) == self.jobs:
                    self._finish_one(running)
                    continue
                pending.remove(ready)
                decision = self.decide(ready, ready.name in chosen)
                title = f"[{places[ready.name]}/{len(places)}] {ready.name}"
                self.say(f"{title}: {_doing(decision)}")
                if decision.action not in ("skip", "leave"):
                    self._check_needs(ready)
                    running.append(self._begin(ready, decision, title, lock))
                self.digests.save()
        except UserError as first:
            error = first
            while running:  # what others have done so far is not thrown away
                self.say(f"{error}\nwaiting for {_names([job.stage.name for job in running])}")
                try:
                    self._finish_one(running)
                except UserError as another:
                    error = another
            raise first if error is first else UserError(f"{first}; also: {error}") from None

    def decide(self, stage: Stage, chosen: bool) -> Decision:
        """Decides whether a stage has to run.

        Raises:
            UserError: an input that the recipe names is missing.
        """
        state = read_state(stage.run)
        if not chosen:
            return Decision("leave", "not among the chosen stages" if state else "not chosen, and it never ran")
        earlier = [name for name in stage.needs if name in self.waiting]
        if state is None:
            return Decision("start", "it never ran")
        if _fits(stage.name, self.choice.force):
            return Decision("start", "--force")
        if earlier:
            return Decision("start", f"{_names(earlier)} would run before")
        now = fingerprint(stage, self._marks(stage), self.recipe.folder, self.digests)
        if changed := differences(state["fingerprint"], now):
            return Decision("start", "; ".join(changed[:3]) + (f"; {len(changed) - 3} more" if changed[3:] else ""))
        if state["status"] != "done":
            return _unfinished(stage, state)
        if lost := _lost(stage):
            return Decision("start", f"its output {_names(lost)} is gone")
        return Decision("skip", f"nothing that it depends on changed since {state['started']}")

    def _marks(self, stage: Stage) -> dict[str, str]:
        """Marks of the last runs of the stages that this one needs."""
        states = {name: read_state(stage.run.parent / name) for name in stage.needs}
        return {name: "" if state is None else state["mark"] for name, state in states.items()}

    def _check_needs(self, stage: Stage) -> None:
        for name in stage.needs:
            state = read_state(stage.run.parent / name)
            if state is None or state["status"] != "done":
                how = "never ran" if state is None else f"is not finished ({state['status']})"
                raise UserError(
                    f"stage '{stage.name}' needs '{name}', which {how}: leave --stages and --from out, or let "
                    f"--stages name it, too"
                )

    def _fresh(self, stage: Stage, title: str) -> State:
        """Makes an empty run folder and the initial state of a stage."""
        kept = move_aside(stage.run)
        if kept is not None:
            self.say(f"{title}: its last folder is kept as {kept}")
        stage.run.mkdir(parents=True)
        return {
            "status": "running",
            "mark": secrets.token_hex(8),
            "command": f"python cli.py {shlex.join(stage.command)}",
            "fingerprint": fingerprint(stage, self._marks(stage), self.recipe.folder, self.digests),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }

    def _begin(self, stage: Stage, decision: Decision, title: str, lock: int) -> Job:
        state = read_state(stage.run)
        if decision.action == "start" or state is None:
            state = self._fresh(stage, title)
        state["status"] = "running"
        write_state(stage.run, state)
        self.digests.save()
        words = ["resume", str(stage.run)] if decision.action == "resume" else list(stage.command)
        shown, threads = self.jobs == 1, None if self.jobs == 1 else max(1, cores() // self.jobs)
        begun = time.monotonic()
        process = StageProcess(
            words, stage.run / LOG, lock=lock, shown=shown, threads=threads, names=self._names(stage)
        )
        return Job(stage=stage, title=title, state=state, begun=begun, process=process)

    def _names(self, stage: Stage) -> dict[str, str]:
        """How W&B groups the stages: by recipe; a stage run with several seeds is one kind of job."""
        recipe = self.recipe.path.stem
        return {"WANDB_RUN_GROUP": recipe, "WANDB_JOB_TYPE": stage.name, "WANDB_TAGS": f"{recipe},{stage.name}"}

    def _finish_one(self, running: list[Job]) -> None:
        """Waits for one of the running stages to end, removes it from the list and records how it ended.

        Raises:
            UserError: it failed.
        """
        ended = None
        while ended is None:
            ended = next((job for job in running if job.process.poll() is not None), None)
            if ended is None:
                time.sleep(_GLANCE)
        stage, state, code = ended.stage, ended.state, ended.process.poll() or 0
        lost = _lost(stage)
        _note_end(ended, "done" if code == 0 and not lost else "failed")
        running.remove(ended)
        if code != 0:
            reason = "" if self.jobs == 1 else _last_error(stage.run / LOG)  # one that is shown was read already
            raise UserError(
                f"stage '{stage.name}' failed ({_ending(code)}{reason}): its output is in "
                f"{stage.run / LOG}; fix it, then resume with: {self.again}"
            )
        if lost:
            raise UserError(
                f"stage '{stage.name}' succeeded but did not write {_names(lost)} into {stage.run}: correct 'outputs' "
                f"or the command in {self.recipe.path}, then resume with: {self.again}"
            )
        self.say(f"{ended.title}: done in {duration(state['seconds'])}")


def _lost(stage: Stage) -> list[str]:
    """Outputs that are missing."""
    return [name for name in stage.outputs if not (stage.run / name).exists()]


def _note_end(job: Job, status: Literal["done", "failed", "interrupted"]) -> None:
    """Records how a stage ended and how long it took."""
    job.state["status"] = status
    job.state["seconds"] = round(job.state.get("seconds", 0.0) + time.monotonic() - job.begun, 1)
    write_state(job.stage.run, job.state)


def _unfinished(stage: Stage, state: State) -> Decision:
    """What to do with an unfinished stage whose inputs have not changed."""
    how = {"failed": "it failed", "interrupted": "it was interrupted"}.get(state["status"], "it was killed")
    last = stage.run / "checkpoints" / "last.ckpt"
    if stage.command[0] == "fit" and (stage.run / "config.yaml").is_file() and is_checkpoint(last):
        return Decision("resume", f"{how}; from its last checkpoint")
    if stage.resumes:
        return Decision("repeat", f"{how}; its command resumes in its folder")
    return Decision("start", f"{how}; from its beginning")


def _doing(decision: Decision) -> str:
    does = {"skip": "skipped", "leave": "left", "start": "runs", "resume": "resumes", "repeat": "resumes"}
    return f"{does[decision.action]}: {decision.reason}"


def move_aside(run: Path) -> Path | None:
    """Renames a non-empty folder to ``NAME.old-N`` and returns its new name, None if there is nothing to keep."""
    if not run.exists():
        return None
    if not any(run.iterdir()):
        run.rmdir()
        return None
    number = 1
    while (kept := run.with_name(f"{run.name}.old-{number}")).exists():
        number += 1
    return run.rename(kept)


def duration(seconds: float) -> str:
    """Formats a duration in seconds.

    >>> duration(3.21), duration(192), duration(7322)
    ('3.2 s', '3 min 12 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    hint = ", perhaps for want of memory" if code == -9 else ""
    return f"killed by signal {-code}{hint}"


def _last_error(log: Path) -> str:
    """The line of a log that gives the reason of a failure."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode("utf-8", "replace").split("\n")
    found = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    return ": " + found.removeprefix("error: ").strip() if found else ""
