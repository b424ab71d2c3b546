"""``sweep FILE``: searches over settings, without an account; the file is one that ``wandb sweep`` takes too.

Optuna chooses the settings of every trial, each trial is a ``fit`` in a process and run folder of its own, and trials
that fall behind are stopped early. The same command resumes a sweep that was interrupted or killed: finished trials are
kept, those that were cut off resume from their checkpoint. The folder gets ``sweep.html``, one page that needs no other
file, and ``sweep.csv``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import Parser, dashed, positive
from core.errors import UserError
from core.text import say

if TYPE_CHECKING:
    from commands.sweeps.document import Sweep

TRIALS = 20


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py sweep", description=__doc__.split("\n\n")[1] if __doc__ else None)
    add = parser.add_argument
    add("file", type=Path, help="experiments/sweeps/NAME.yaml")
    add("--out", type=Path, metavar="FOLDER", help="folder of the sweep; default: runs/sweeps/NAME")
    add("--trials", type=positive, help=f"trials in all; default: run_cap of the file, or {TRIALS}")
    add("--jobs", type=positive, default=1, metavar="N", help="trials that run at the same time")
    add("--seed", type=int, default=0, help="random seed of the choice of settings")
    add("--dry-run", action="store_true", help="print the commands of the first trials; run and write nothing")
    return parser


def main(args: Sequence[str]) -> int:
    """Runs a sweep and writes its page and table.

    Raises:
        UserError: the file is wrong, a package is missing, or the first trials all fail.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    from commands.sweeps.document import read_sweep

    sweep = read_sweep(options.file)
    trials = options.trials or sweep.run_cap or TRIALS
    try:
        import optuna  # noqa: F401  # what is missing is named here
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package '{error.name}' is missing: python -m pip install -e '.[sweep]' installs it"
        ) from error
    if options.dry_run:
        _show_commands(sweep, options.seed, trials)
        return 0
    out = options.out or Path("runs/sweeps") / sweep.name
    from commands.recipes.process import locked, termination_as_interrupt
    from commands.sweeps.runner import Runner, again
    from commands.sweeps.study import open_study
    from commands.sweeps.summary import say_table, write_results

    with termination_as_interrupt(), locked(out, "sweep", "--out") as lock:
        study = open_study(sweep, out, options.seed)
        try:
            Runner(sweep=sweep, study=study, out=out, lock=lock, jobs=options.jobs).run(trials)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; resume with: {again(options.file, out, trials)}") from None
        finally:
            write_results(sweep, study, out)
        say_table(sweep, study)
        say(f"written: {out / 'sweep.html'}")
    return 0


def _show_commands(sweep: "Sweep", seed: int, trials: int) -> None:
    """Prints the commands of some trials, as the search would choose them if all were equally good."""
    import optuna

    from commands.sweeps.study import grid, make_sampler, suggest
    from core.errors import command

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=make_sampler(sweep, seed))
    for settings in grid(sweep) if sweep.method == "grid" else ():
        study.enqueue_trial(settings)
    for _ in range(min(trials, 5)):
        trial = study.ask()
        say(command(*sweep.words(suggest(sweep, trial))))
        study.tell(trial, 0.0)
