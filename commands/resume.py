"""``resume RUN``: continues an interrupted run exactly, with its own configuration."""

from collections.abc import Sequence
from pathlib import Path

from commands.arguments import Parser
from core.checkpoints import is_checkpoint
from core.errors import UserError


def main(args: Sequence[str]) -> int:
    """Continues the run in a folder from its last checkpoint; from its beginning if it stopped before the first.

    Args:
        args: the run folder, then options of ``fit`` that may change without changing the result
            (``--trainer.enable_progress_bar=false``, a longer ``--trainer.max_epochs``).

    Raises:
        UserError: the folder holds no run that can be resumed.
    """
    parser = Parser("cli.py resume", description=__doc__)
    parser.add_argument("run", help="run folder, as fit prints it last")
    known, rest = parser.parse_known_args(list(args))
    run = Path(known.run)
    config, checkpoint = run / "config.yaml", run / "checkpoints" / "last.ckpt"
    if not config.is_file():
        raise UserError(
            f"'{run}' is not a run folder: it has no config.yaml; give the folder that fit printed last, or start a "
            "run that stopped before it wrote one again with the same command"
        )
    from commands.trainer import runs, train

    runs.restore_threads(run)
    start = ["--ckpt_path", str(checkpoint)] if is_checkpoint(checkpoint) else []
    return train.main(["fit", "--config", str(config), "--run_dir", str(run), *start, *rest])
