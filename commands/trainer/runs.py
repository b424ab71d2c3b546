"""Run folders: where a run is written, which checkpoint is meant, what is noted about it."""

import contextlib
import itertools
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.checkpoints import find_checkpoint, is_checkpoint, way_on
from core.errors import Interrupted, UserError, command
from core.files import write_json
from core.locks import FolderLock, is_abandoned, make_new_folder
from core.processes import end_with_parent
from reporting.loggers import read_facts

_CHILD = "CAPTION_RUN_DIR"
"""Environment variable by which the first process of a run tells its folder to those that it starts: ID:FOLDER."""


def locate(
    subcommand: str, run_dir: str | None, ckpt_path: str | None, configs: list[str], writes: bool = True
) -> tuple[Path, Path | None]:
    """Decides where a command writes and which checkpoint it reads.

    Args:
        subcommand: fit, validate, test or predict.
        run_dir: folder asked for, or None.
        ckpt_path: checkpoint or run folder asked for; "last" and "best" are those of `run_dir`.
        configs: experiment files, the first one names the experiment.
        writes: false: nothing will be written, so the folder is only named.

    Returns:
        The folder to write into and the checkpoint file, if any. Training from a run's ``last.ckpt`` continues in that
        run; from any other checkpoint it writes a folder of its own, since resuming would undo what followed.

    Raises:
        UserError: the folder is taken, or there is no such checkpoint.
    """
    checkpoint = _checkpoint(subcommand, run_dir, ckpt_path)
    starter, _, announced = os.environ.get(_CHILD, "").partition(":")
    # a rank alone is no proof: Lightning leaves LOCAL_RANK behind in the process that started the others
    if starter == str(os.getppid()) and os.environ.get("LOCAL_RANK", "0") != "0":
        end_with_parent(int(starter))
        return Path(announced), checkpoint
    if not writes:
        return Path(run_dir or _new_folder(configs)), checkpoint
    if subcommand == "fit":
        folder, checkpoint = _training_folder(run_dir, checkpoint, configs)
    else:
        folder = _evaluation_folder(subcommand, run_dir, checkpoint, configs)
    os.environ[_CHILD] = f"{os.getpid()}:{folder}"
    return folder, checkpoint


def _training_folder(run_dir: str | None, checkpoint: Path | None, configs: list[str]) -> tuple[Path, Path | None]:
    if checkpoint is not None and checkpoint.name == "last.ckpt" and run_dir is None:
        run_dir = str(run_of(checkpoint) or "") or None
    requeued = None if checkpoint is not None else _requeued(run_dir, configs)
    if run_dir or requeued:
        folder = _own(requeued or Path(str(run_dir)))
    else:
        folder = _own_new(_new_folder(configs))
    last = folder / "checkpoints" / "last.ckpt"
    if requeued:
        return folder, last if is_checkpoint(last) else None
    resumes = checkpoint is not None and checkpoint.resolve() == last.resolve()
    # a run that stopped before its first checkpoint has nothing to lose: its own configuration starts it again
    begins = checkpoint is None and configs == [str(folder / "config.yaml")] and not last.exists()
    if not resumes and not begins and (folder / "config.yaml").exists():
        raise UserError(
            f"run folder '{folder}' holds a run already and is never overwritten: choose another --run_dir, or "
            f"{way_on(folder)}"
        )
    return folder, checkpoint


def check_unused(folder: Path) -> None:
    """Makes sure that a run without checkpoints does not begin again over what it has written.

    Raises:
        UserError: the folder holds a run.
    """
    if (folder / "config.yaml").exists():
        raise UserError(
            f"run '{folder}' writes no checkpoints (trainer.enable_checkpointing=false), so it cannot be resumed: "
            f"start a new one with {command('fit', '--config', folder / 'config.yaml')}"
        )


_owned: list[FolderLock] = []
"""Folders of the command that is running."""


@contextlib.contextmanager
def ownership() -> Iterator[None]:
    """Gives up at its end the folders that the command inside has taken."""
    before = len(_owned)
    try:
        yield
    finally:
        while len(_owned) > before:
            _owned.pop().release()


def _own(folder: Path) -> Path:
    """Takes a folder for this process; of several processes of one run the first one takes it for all."""
    if is_first():
        _owned.append(FolderLock(folder))
        _sweep(folder)
    return folder


def is_first() -> bool:
    """Whether this process is the first of those that `torchrun` or a cluster started for one run."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID", "NODE_RANK"))


def _sweep(folder: Path) -> None:
    """Removes half-written files: the process that was killed while it wrote them had the folder's lock."""
    for left in folder.rglob("*.tmp*"):
        if re.fullmatch(r".+\.tmp\d+", left.name) and "wandb" not in left.parts:
            left.unlink(missing_ok=True)


def _sweep_evaluations(folder: Path) -> None:
    """Removes what killed evaluations have left in their folders, which nobody takes again."""
    for other in folder.glob("*/"):
        if is_abandoned(other):
            with contextlib.suppress(UserError, OSError):  # somebody else is at it
                lock = FolderLock(other)
                _sweep(other)
                lock.release()


def _own_new(folder: Path) -> Path:
    """Makes a folder of this name, or with a number behind it, and takes it; only the first process writes there."""
    if not is_first():
        return folder
    own, made = make_new_folder(folder)
    _owned.append(FolderLock(own, made=made))
    return own


def interrupted(stop: Interrupted) -> Interrupted:
    """What to say after a signal, with the way to resume; a warned job of a cluster is queued again."""
    name = signal.Signals(stop.number).name
    text = f"interrupted by {name}{f', {stop.message}' if stop.message else ''}: {way_on(own_folder())}"
    if name == "SIGUSR1" and is_first() and (job := cluster_job()) is not None:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        text += "; the job is queued again" if done.returncode == 0 else f"; scontrol requeue: {done.stderr.strip()}"
    return Interrupted(stop.number, message=text)


def own_folder() -> Path:
    """The run folder of this process; the current folder when it has none yet."""
    return Path(os.environ.get(_CHILD, "").partition(":")[2])


def cluster_job() -> str | None:
    """Id of the SLURM job that this is; None elsewhere."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _requeued(run_dir: str | None, configs: list[str]) -> Path | None:
    """The run folder that this command wrote when its cluster job ran before it was queued again."""
    job = cluster_job()
    if job is None or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    first = Path(run_dir) if run_dir else _new_folder(configs)
    others = sorted(first.parent.glob(f"{first.name}-*")) if run_dir is None else []
    for folder in (first, *others):
        facts = read_facts(folder)
        if facts.get("job") == job and facts.get("command") == " ".join(sys.argv):
            return folder
    return None


def with_saved_config(args: list[str]) -> list[str]:
    """Adds the run's own configuration when a run is evaluated and none is given.

    Args:
        args: subcommand and options.
    """
    given = any(arg == "--config" or arg.startswith(("--config=", "--print_config", "--help")) for arg in args)
    if given or args[0] == "fit" or "-h" in args:
        return args
    path, run_dir = _value(args, "--ckpt_path"), _value(args, "--run_dir")
    checkpoint = _checkpoint(args[0], run_dir, path)
    run = None if checkpoint is None else run_of(checkpoint)
    config = run / "config.yaml" if run else None
    return [args[0], "--config", str(config), *args[1:]] if config and config.is_file() else args


def config_files(args: list[str]) -> list[str]:
    """The experiment files named on a command line, in order.

    >>> config_files(["fit", "--config", "a.yaml", "--trainer.max_epochs=1", "--config=b.yaml"])
    ['a.yaml', 'b.yaml']
    """
    files = [value for name, value in itertools.pairwise(args) if name == "--config"]
    return files + [arg.partition("=")[2] for arg in args if arg.startswith("--config=")]


def write_facts(folder: Path, wandb_id: str | None, **more: Any) -> None:
    """Notes in ``run.json`` what is needed to believe, repeat or continue a run.

    Args:
        folder: run folder.
        wandb_id: id of its W&B run.
        more: further entries.
    """
    import torch

    facts = {
        "command": " ".join(sys.argv),
        "commit": commit(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "lightning", "transformers", "timm")},
        "threads": torch.get_num_threads(),
        "job": cluster_job(),
        "wandb_id": wandb_id,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        **more,
    }
    write_json(folder / "run.json", facts, indent=2)


def restore_threads(run: Path) -> None:
    """Takes as many threads as the run began with: on a CPU the order of sums, and so the bits, depend on it."""
    import torch

    threads = read_facts(run).get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)


def _value(args: list[str], name: str) -> str | None:
    """The last value given to an option, or None."""
    found = [value for flag, value in itertools.pairwise(args) if flag == name]
    found += [arg.partition("=")[2] for arg in args if arg.startswith(name + "=")]
    return found[-1] if found else None


def _checkpoint(subcommand: str, run_dir: str | None, ckpt_path: str | None) -> Path | None:
    """The checkpoint file that is meant; a run folder means its last one for training, its best for the rest."""
    if ckpt_path is None:
        return None
    if ckpt_path in ("last", "best"):
        if run_dir is None:
            raise UserError(f"--ckpt_path {ckpt_path} needs --run_dir RUN, the run that it belongs to")
        return find_checkpoint(Path(run_dir) / "checkpoints" / f"{ckpt_path}.ckpt")
    last = Path(ckpt_path) / "checkpoints" / "last.ckpt"
    return last if subcommand == "fit" and is_checkpoint(last) else find_checkpoint(ckpt_path)


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in; None for a file somewhere else."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def _new_folder(configs: list[str]) -> Path:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("under torchrun every process must know the run folder: pass --run_dir PATH")
    job = cluster_job()
    return Path("runs") / experiment(configs) / (f"slurm-{job}" if job else time.strftime("%Y-%m-%d_%H-%M-%S"))


def experiment(configs: list[str]) -> str:
    """Names an experiment by its first file: ``experiments/offline/x.yaml`` is ``offline_x``."""
    if not configs:
        return "unnamed"
    path = Path(configs[0])
    if path.name == "config.yaml" and path.resolve().parent.parent.name:
        return path.resolve().parent.parent.name  # the saved one of a run: runs/EXPERIMENT/RUN/config.yaml
    return f"offline_{path.stem}" if path.parent.name == "offline" else path.stem


def _evaluation_folder(subcommand: str, run_dir: str | None, checkpoint: Path | None, configs: list[str]) -> Path:
    if checkpoint is None:
        raise UserError(f"{subcommand} needs a trained model: pass --ckpt_path RUN (a run folder or a .ckpt file)")
    if run_dir is not None and not (Path(run_dir) / "config.yaml").exists():
        if any((Path(run_dir) / name).exists() for name in ("predictions.json", "metrics.json")):
            raise UserError(f"--run_dir {run_dir} holds results already, which are never overwritten: choose another")
        return _own(Path(run_dir))
    run = run_of(checkpoint) if run_dir is None else Path(run_dir)
    if run is None:
        return _own_new(Path("runs") / experiment(configs) / subcommand)
    if is_first():
        _sweep_evaluations(run / "eval")
    return _own_new(run / "eval" / (subcommand if checkpoint.stem == "best" else f"{subcommand}_{checkpoint.stem}"))


def commit() -> str | None:
    """Commit of this checkout, with "+" when files differ from it; None outside of git."""
    try:
        run = [
            subprocess.run(["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
            for args in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return run[0].strip() + ("+" if run[1].strip() else "")
