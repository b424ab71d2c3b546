"""``resume RUN``: goes on with an interrupted run, with its own configuration, exactly."""

from collections.abc import Sequence
from pathlib import Path

from commands.arguments import Parser
from core.errors import UserError


def main(args: Sequence[str]) -> int:
    """Continues the run in a folder from its last checkpoint.

    Args:
        args: the run folder, then options of ``fit`` that may change without changing the result
            (``--trainer.enable_progress_bar=false``, a longer ``--trainer.max_epochs``).

    Raises:
        UserError: the folder holds no run that can go on.
    """
    parser = Parser("cli.py resume", __doc__)
    parser.add_argument("run", help="run folder, as the last line of fit names it")
    known, rest = parser.parse_known_args(list(args))
    run = Path(known.run)
    config, checkpoint = run / "config.yaml", run / "checkpoints" / "last.ckpt"
    if not config.is_file():
        raise UserError(f"'{run}' is not a run folder: it has no config.yaml; give the folder that fit named last")
    if not checkpoint.is_file():
        raise UserError(
            f"run '{run}' was stopped before its first checkpoint ({checkpoint} is missing): start it again with "
            f"python cli.py fit --config {config}"
        )
    from commands.trainer import runs, train

    runs.restore_threads(run)
    return train.main(["fit", "--config", str(config), "--run_dir", str(run), "--ckpt_path", str(checkpoint), *rest])
