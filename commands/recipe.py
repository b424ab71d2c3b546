"""``recipe FILE``: runs the stages of an experiment, one after another or ``--jobs N``; what is up to date is skipped.

A recipe is a YAML file (experiments/recipes/NAME.yaml)::

    about: One line on what it shows.
    vars:                       # every one can be set: --seed 3, --set labels=100
      seed: 1
      labels: 300
      data: ${oc.env:CAPTION_DATA,../shared/data}/ucm
    stages:
      teacher:
        command: fit --config experiments/offline/emotion_teacher.yaml --seed_everything=${seed}
          --data.init_args.num_train=${labels}
      pseudo_labels:            # ${teacher.run}: run folder of that stage, which therefore runs before
        command: predict --config experiments/offline/emotion_pseudo_labels.yaml --ckpt_path ${teacher.run}
          --data.init_args.tokenizer=${teacher.run}
        resumes: true           # called again in the folder of an interrupted call, it resumes by itself
        outputs: [pseudo_labels/summary.json]
      A${n}B${plus}:            # a stage for every combination: A0B, A0B+, A1B, ...
        for: {n: [0, 1, 2], plus: ["", "+"]}
        command: [fit, --config, experiments/offline/emotion_transfer.yaml, "--model.init_args.cut_depth=${n}"]
        inputs: ["${data}/labels.csv"]
        after: [pseudo_labels]
      test_A${n}B${plus}:
        for: {n: [0, 1, 2], plus: ["", "+"]}
        command: test --ckpt_path ${A${n}B${plus}.run}
      figures:                  # ${PATTERN.run}: a word for every stage that matches
        command: compare ${test_*.run} --out ${run}
    summary:                    # the table at the end; optional
      rows: ["test_*"]
      metrics: [macro_ap, top1, lift_over_prior]
      compare: [[test_A0B, test_A2B+]]     # paired bootstrap on their predictions

``command`` holds words of this command line, as a text or a list. What stages or recipes share stands once, by
``groups`` and ``extends`` (docs/recipes.md). Its run folder, ``runs/RECIPE/seed-N/STAGE``, is
given to fit, validate, test and predict as ``--run_dir``; other commands, and these, can place it themselves with
``${run}``. ``${NAME}`` is a variable, ``${oc.env:NAME,default}`` one of the environment, ``$${`` a plain ``${``.
Paths are those of the folder from which python cli.py is started.

A stage runs again when one of these changed: its words (but for loggers and progress bars), the content of files that
they or its experiment files name (of a folder of data: names, annotation files, sizes and times of the rest),
``inputs``, or a stage that it needs, which ran again or whose checkpoint is another. Changed comments in an experiment
file do not count; changes of the program do not either: --force. Nothing is overwritten: the folder of the last run is
kept as ``STAGE.old-N``. An interrupted stage resumes: fit exactly from its last checkpoint,
others start again.

Existing runners were looked at: doit writes what it knows only when all is over (a kill forgets finished stages), takes
digests after a task (an experiment file edited while it trains counts as used) and knows no half-done task.
"""

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import Parser, dashed
from core.errors import UserError
from core.text import say

if TYPE_CHECKING:
    from commands.recipes.document import Recipe
    from commands.recipes.engine import Choice


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser(
        "cli.py recipe",
        description="Runs the stages of a recipe; what is up to date is skipped. Format: docs/recipes.md",
    )
    add = parser.add_argument
    add("file", type=Path, help="experiments/recipes/NAME.yaml")
    add(
        "--seed",
        action="append",
        metavar="N[,N...]",
        help="value of the variable 'seed'; with several, the recipe runs once per value",
    )
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="another variable of the recipe")
    add("--run-dir", type=Path, help="folder of the recipe's runs; by default runs/RECIPE")
    add(
        "--stages",
        "--only",
        action="append",
        default=[],
        metavar="A,B",
        help="run only these stages; patterns such as test_* are allowed",
    )
    add("--from", dest="start", metavar="A", help="start at this stage and keep the results of those before it")
    add(
        "--force",
        action="append",
        default=[],
        metavar="A,B",
        help="run these stages even if nothing has changed; '*' for all",
    )
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="stages to run in parallel; their output goes to their log files",
    )
    add("--dry-run", action="store_true", help="print which stages would run, and why, without running any")
    add("--trust", action="store_true", help="let the recipe and its experiment files name classes of anybody")
    add("--list", action="store_true", help="print the variables and stages of the recipe")
    return parser


def main(args: Sequence[str]) -> int:
    """Runs a recipe for one seed or several and prints its summary.

    Raises:
        UserError: the recipe or an option is wrong, or a stage failed.
        KeyboardInterrupt: Ctrl-C; the message names the command that resumes it.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    from commands.recipes.document import resolve
    from commands.recipes.engine import Choice
    from commands.recipes.reading import read_document

    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: expected 1 or more")
    document = read_document(options.file)
    given = read_settings(options.set)
    base = options.run_dir or Path("runs") / recipe_name(options.file)
    choice = Choice(stages=split(options.stages), start=options.start, force=split(options.force))
    seeds = split(options.seed or [])
    for seed in seeds:
        if not seed.lstrip("-").isdigit():
            raise UserError(f"--seed {seed}: expected whole numbers, such as --seed 1 or --seed 1,2,3")
    settings = [{**given, "seed": seed} for seed in seeds] or [given]
    recipes = [resolve(document, options.file, setting, base) for setting in settings]
    for recipe in recipes:
        choice.check(recipe)
    if options.list:
        describe(recipes[0])
        return 0
    if not options.trust:
        from commands.recipes.trusted import check_recipe

        for recipe in recipes:
            check_recipe(recipe)
    words = [str(options.file), *itertools.chain.from_iterable(("--set", text) for text in options.set)]
    words += ["--run-dir", str(options.run_dir)] if options.run_dir else []
    words += ["--trust"] if options.trust else []
    words += ["--jobs", str(options.jobs)] if options.jobs > 1 else []
    words += ["--seed", ",".join(seeds)] if seeds else []
    words += ["--stages", ",".join(choice.stages)] if choice.stages else []
    words += ["--from", choice.start] if choice.start else []
    for recipe in recipes:
        run_one(recipe, choice, f"python cli.py recipe {shlex.join(words)}", options.jobs, options.dry_run)
    if not options.dry_run:
        from commands.recipes.summary import summarize

        summarize(recipes, base)
    return 0


def run_one(recipe: "Recipe", choice: "Choice", again: str, jobs: int, dry_run: bool) -> None:
    """Runs the stages for one setting of the variables, or prints what would run."""
    from commands.recipes.engine import Engine
    from commands.recipes.inputs import Digests
    from commands.recipes.process import locked, termination_as_interrupt

    say(f"{recipe.path}: {len(recipe.stages)} stages in {recipe.folder}")
    engine = Engine(
        recipe=recipe, choice=choice, again=again, say=say, digests=Digests(recipe.folder / ".digests.json"), jobs=jobs
    )
    if dry_run:
        engine.plan()
        return
    with locked(recipe.folder) as lock, termination_as_interrupt():
        engine.run(lock)


def describe(recipe: "Recipe") -> None:
    """Prints variables and stages."""
    for name, value in recipe.variables.items():
        say(f"--set {name}={value}")
    for stage in recipe.stages:
        say(f"{stage.name}{' <- ' + ', '.join(stage.needs) if stage.needs else ''}")
        say(f"    python cli.py {shlex.join(stage.command)}")


def read_settings(texts: Sequence[str]) -> dict[str, str]:
    """Variables given by ``--set NAME=VALUE``.

    Raises:
        UserError: one has no "=".
    """
    for text in texts:
        if "=" not in text:
            raise UserError(f"--set {text}: expected NAME=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def split(texts: Sequence[str]) -> tuple[str, ...]:
    """Takes lists with commas apart.

    >>> split(["a,b", "c"])
    ('a', 'b', 'c')
    """
    return tuple(part for text in texts for part in text.split(",") if part)


def recipe_name(path: Path) -> str:
    """Names a recipe by its file: ``experiments/recipes/offline/x.yaml`` is ``offline_x``."""
    return f"offline_{path.stem}" if path.parent.name == "offline" else path.stem
