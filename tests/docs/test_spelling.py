"""Prose is British, with -ise: comments, docstrings and pages. Names of code keep the libraries' spelling."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.conftest import ROOT

AMERICAN = re.compile(
    r"\b(?:(?:normal|optim|minim|maxim|initial|recogn|summar|serial|random|general|synchron|categor|quant|real|organ)"
    r"iz(?:e[ds]?|ers?|ing|ations?)"
    r"|tokeniz(?:e[ds]?|ing|ations?)|vectoriz\w+|analyz\w+|behaviors?|colors?|colored|centers?|centered|gray"
    r"|neighbors?|labeled|labeling|modeling|favorite|catalogs?)\b",
    re.IGNORECASE,
)
"""American spellings that have turned up, or would; "tokenizer" is a term of the libraries and stays."""
PLAIN = re.compile(
    r"``.*?``|`.*?`|\"[^\"]{0,200}\"|https?://\S+|\b\w+(?:[._/=]\w+)+\b|^\s*\w+:(?= )|--\S+", re.DOTALL | re.MULTILINE
)
"""What is no prose: code spans, quotations, addresses, dotted names, names of arguments in docstrings."""
FOLDERS = (
    "benchmarks",
    "callbacks",
    "commands",
    "core",
    "datamodules",
    "lightning_modules",
    "metrics",
    "networks",
    "reporting",
    "scripts",
    "tests",
)


def american(text: str) -> list[str]:
    """American spellings in prose."""
    return AMERICAN.findall(PLAIN.sub(" ", text))


def python_prose(text: str) -> str:
    """Comments and docstrings of a file."""
    found = [
        item.string for item in tokenize.generate_tokens(io.StringIO(text).readline) if item.type == tokenize.COMMENT
    ]
    found += [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return "\n\n".join(re.sub(r">>>.*", "", part) for part in found)


def page_prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```|^ {4}.*?$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("folder", FOLDERS)
def test_comments_and_docstrings_are_british(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(path.relative_to(ROOT)): american(python_prose(path.read_text("utf-8"))) for path in files}
    assert {path: words for path, words in found.items() if words} == {}


def test_pages_are_british():
    pages: list[Path] = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert len(pages) > 10
    found = {path.name: american(page_prose(path.read_text("utf-8"))) for path in pages}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the optimizer's colors", ["optimizer", "colors"]),
        ("`optimizer`, ``color`` and model.normalization", []),
        ("        normalization: colour scale, normalized", ["normalized"]),
        ("the tokenizer; tokenization", ["tokenization"]),
    ],
)
def test_american_prose_is_found_and_names_are_not(text, words):
    assert american(text) == words
