"""Text of users is shown in one way each: a module that goes round the shared helpers fails here."""

import ast

import pytest

from tests.conftest import ROOT


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(node):
    """The last name of what is called."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def imported(tree, package):
    """Lines that import a package."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        if any(name == package or name.startswith(f"{package}.") for name in names):
            yield node.lineno


def lines_of(tree, *names, unless=lambda call: False):
    return [call.lineno for call in calls(tree) if name_of(call.func) in names and not unless(call)]


def is_visible(call):
    """Whether a call's first argument is a fixed text or made visible."""
    text = call.args[0]
    return isinstance(text, ast.Constant) or (isinstance(text, ast.Call) and name_of(text.func) == "visible")


def is_library(call):
    """Whether a logger of somebody else is asked for."""
    return not (call.args and name_of(call.args[0]) == "__name__")


def has_handles(call):
    return len(call.args) >= 2 or any(keyword.arg == "handles" for keyword in call.keywords)


RULES = {
    # the third is copied into exports, where there is nothing of this project
    "print": (
        lambda tree: lines_of(tree, "print"),
        {"core/text.py", "core/terminal.py", "commands/exporting/standalone.py"},
    ),
    # it relays what stages print, who came this way already
    "streams": (
        lambda tree: [
            call.lineno
            for call in calls(tree)
            if name_of(call.func) in ("write", "writelines") and name_of(getattr(call.func, "value", None)) in STREAMS
        ],
        {"commands/recipes/process.py"},
    ),
    "rich": (lambda tree: list(imported(tree, "rich")), {"core/terminal.py"}),
    "own loggers": (lambda tree: lines_of(tree, "getLogger", unless=is_library), {"core/text.py"}),
    "remarks": (
        lambda tree: lines_of(
            tree, "rank_zero_info", "rank_zero_warn", "rank_zero_deprecation", "warn", unless=is_visible
        ),
        set(),
    ),
    "pyplot": (lambda tree: [*imported(tree, "matplotlib.pyplot"), *imported(tree, "pylab")], set()),
    "figures": (lambda tree: lines_of(tree, "Figure", "subplot_mosaic"), set()),
    "names of ticks": (
        lambda tree: [
            *lines_of(tree, "set_xticklabels", "set_yticklabels"),
            *lines_of(tree, "set_xticks", "set_yticks", "set_ticks", unless=lambda call: len(call.args) < 2),
        ],
        {"reporting/drawing.py"},
    ),
    "legends": (lambda tree: lines_of(tree, "legend", unless=has_handles), set()),
    "pages": (lambda tree: lines_of(tree, "Environment", "Template", "Markup"), {"reporting/page.py"}),
    # metrics.csv has numbers under names of ours
    "CSV": (
        lambda tree: lines_of(tree, "to_csv", "writer", "DictWriter"),
        {"core/csv_files.py", "reporting/loggers.py"},
    ),
    "W&B and TensorBoard": (
        lambda tree: [
            *imported(tree, "wandb"),
            *lines_of(tree, "log_image", "log_text", "log_table", "add_text", "add_figure", "add_image", "add_images"),
        ],
        {"reporting/dashboards.py"},
    ),
}
STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")
SOURCES = [
    path
    for package in ("callbacks", "commands", "core", "datamodules", "lightning_modules", "metrics", "networks")
    for path in sorted((ROOT / package).rglob("*.py"))
] + [*sorted((ROOT / "reporting").rglob("*.py")), ROOT / "cli.py"]


@pytest.fixture(scope="module")
def trees():
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in SOURCES}


@pytest.mark.parametrize("rule", list(RULES))
def test_there_is_one_way_to_show_text(trees, rule):
    find, allowed = RULES[rule]
    found = {name: lines for name, tree in trees.items() if name not in allowed and (lines := find(tree))}
    assert not found, f"{rule}: go through {sorted(allowed) or 'the shared helper'}"


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("print", "print(text)"),
        ("streams", "sys.stdout.write(text)"),
        ("rich", "from rich.table import Table"),
        ("rich", "def f():\n    import rich"),
        ("own loggers", "log = logging.getLogger(__name__)"),
        ("remarks", "rank_zero_info(f'{name}')"),
        ("remarks", "warnings.warn(text)"),
        ("pyplot", "import matplotlib.pyplot as plt"),
        ("figures", "figure = Figure(figsize=(1, 1))"),
        ("names of ticks", "axis.set_yticks(places, names)"),
        ("names of ticks", "axis.set_xticklabels(names)"),
        ("legends", "axis.legend(fontsize=7)"),
        ("pages", "jinja2.Template(text)"),
        ("CSV", "table.to_csv(path)"),
        ("CSV", "csv.writer(file)"),
        ("W&B and TensorBoard", "import wandb"),
        ("W&B and TensorBoard", "logger.log_table('x', data=rows)"),
    ],
)
def test_ways_round_are_found(rule, source):
    assert RULES[rule][0](ast.parse(source))
