"""Command lines and option names, as they stand in pages, headers of experiment files, docstrings and messages."""

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.yaml"))
PACKAGES = (
    "core", "metrics", "networks", "datamodules", "lightning_modules", "reporting", "callbacks", "commands",
)  # fmt: skip
SCRIPTS = sorted(path for folder in ("benchmarks", "scripts") for path in (ROOT / folder).glob("*.py"))
SOURCES = sorted([ROOT / "cli.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))])

_FENCED = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.M | re.S)
_INDENTED = re.compile(r"(?:^ {4}.*\n?)+", re.M)
_COMMAND = re.compile(r"(?:python\S*|torchrun(?: --\S+)+) cli\.py +(.+)")
_TORCHRUN = re.compile(r"torchrun((?: --\S+)+) cli\.py ")
_BATCH = {"job_array": "", "train_nodes": "fit "}
"""Scripts for clusters, and the command that stands before what they are given."""
_SUBMITTED = re.compile(rf"scripts/({'|'.join(_BATCH)})\.sh +(.+)")
_SCRIPT = re.compile(r"python\S* (?:(benchmarks/\w+)\.py|-m (scripts\.\w+))(?![\w.])(.*)")
_MAKE = re.compile(r"(?:^|\s)make +((?:[a-z-]+ ?)+)")
_FLAG = re.compile(r"(?<![\w-])--[A-Za-z][\w.+-]*")
_PROSE = ("then:", "then", "or", "and", "in", "is", "lists", "shows", "to")
"""Words that end a command in running text."""


class Text(NamedTuple):
    """A piece of text with its place: a command line without ``python cli.py``, or a name."""

    text: str
    place: str


def code_of(page: Path) -> tuple[list[str], list[str]]:
    """Lines of the code blocks of a page, continued ones joined, and its inline code."""
    text = page.read_text()
    fenced = [block for language, block in _FENCED.findall(text) if language not in ("{toctree}", "yaml", "text")]
    prose = _FENCED.sub("\n", text)
    # four spaces inside a list are no code
    indented = [] if page.name in ("CONTRIBUTING.md", "CHANGELOG.md") else _INDENTED.findall(prose)
    blocks = "\n".join([*fenced, *indented]).replace("\\\n", " ")
    return blocks.splitlines(), [
        " ".join(span.split()) for span in re.findall(r"`([^`]+)`", _INDENTED.sub("\n", prose))
    ]


def header_of(path: Path) -> list[str]:
    """Lines of the comment at the head of a YAML file; one that begins with an option continues the one before."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            text = line[1:].strip()
            if lines and text.startswith("--"):
                lines[-1] = lines[-1].removesuffix(" \\") + f" {text}"
            else:
                lines.append(text)
        elif not line.startswith("about:"):
            break
    return lines


def strings_of(path: Path) -> Iterator[str]:
    """Every string of a source file; what an f-string fills in is X."""
    tree = ast.parse(path.read_text())
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def words_of(text: str) -> list[str]:
    """Words of a command as it is written for a reader: without comment, brackets, dots and the prose behind it.

    Of alternatives, ``a|b``, the first is taken.

    >>> words_of("fit --config a.yaml [--trainer.devices=1|2] ...  # a comment")
    ['fit', '--config', 'a.yaml', '--trainer.devices=1']
    """
    text = re.sub(r"(?<=\s)\.\.\.(?=\s)", " ", text + " ")
    text = re.sub(r"\s#\s.*|``.*|;.*|[.,]\s.*|\s\(.*|\).*|\\n.*", "", text)
    text = re.sub(r"[\[\]]", " ", text)
    try:
        split = shlex.split(text)
    except ValueError:  # an apostrophe in prose
        split = text.split()
    words = list(itertools.takewhile(lambda word: word not in _PROSE, split))
    return [re.sub(r"\|[\w|]+$", "", word).rstrip(",:") for word in words]


def commands() -> list[Text]:
    """All command lines behind ``python cli.py``."""
    found: list[Text] = []
    for page in PAGES:
        lines, spans = code_of(page)
        found += [Text(line, page.name) for line in [*lines, *spans]]
    for path in EXPERIMENTS:
        found += [Text(line, str(path.relative_to(ROOT))) for line in header_of(path)]
    for path in SOURCES:
        for string in strings_of(path):
            found += [Text(line, str(path.relative_to(ROOT))) for line in string.replace("\n    ", " ").splitlines()]
    starts = re.compile(r"(?=python\S* cli\.py|torchrun --)")
    pieces = [Text(piece, text.place) for text in found for piece in starts.split(text.text)]
    own = [Text(match[1], text.place) for text in pieces if (match := _COMMAND.match(text.text))]
    for path in (ROOT / "scripts").glob("*.sh"):
        found += [Text(line, str(path.relative_to(ROOT))) for line in header_of(path)]
    given = [(text, match) for text in found if (match := _SUBMITTED.search(text.text))]
    return own + [Text(f"{_BATCH[match[1]]}{match[2]}", text.place) for text, match in given]


def launches() -> list[Text]:
    """Options of all calls of ``torchrun`` that pages show."""
    found = [Text(line, page.name) for page in PAGES for line in code_of(page)[0]]
    return [Text(match[1], text.place) for text in found if (match := _TORCHRUN.search(text.text))]


def scripts() -> list[tuple[str, Text]]:
    """All command lines of benchmarks and scripts, in pages and in their own docstrings: file, and words behind it."""
    found = [Text(piece, page.name) for page in PAGES for part in code_of(page) for piece in part]
    for path in SCRIPTS:
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        found += [Text(line, str(path.relative_to(ROOT))) for line in doc.splitlines()]
    return [
        (f"{(match[1] or match[2]).replace('.', '/')}.py", Text(match[3], text.place))
        for text in found
        if (match := _SCRIPT.search(text.text))
    ]


def targets() -> list[Text]:
    """All targets behind ``make``, in pages and headers."""
    found = []
    for page in PAGES:
        lines, spans = code_of(page)
        found += [Text(line, page.name) for line in [*lines, *spans]]
    for path in EXPERIMENTS:
        found += [Text(line, str(path.relative_to(ROOT))) for line in header_of(path)]
    return [
        Text(name, text.place)
        for text in found
        for match in _MAKE.finditer(re.sub(r"\s#\s.*", "", text.text))
        for name in match[1].split()
    ]


def flags() -> list[Text]:
    """All options that stand alone: inline code of pages, and every option in a header or a recipe's stages."""
    found = []
    for page in PAGES:
        spans = [span for span in code_of(page)[1] if span.startswith("--")]
        found += [Text(flag, page.name) for span in spans for flag in _FLAG.findall(span)]
    for path in EXPERIMENTS:
        found += [Text(flag, str(path.relative_to(ROOT))) for flag in _FLAG.findall(path.read_text())]
    return found
