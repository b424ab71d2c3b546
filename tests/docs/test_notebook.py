"""The notebook is valid, small, shows what it printed, and names what exists; ``make notebook`` runs it."""

import ast
import importlib
import json
import re

import pytest

from lightning_modules import AttentionRNN
from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
TEXT = NOTEBOOK.read_text()
CELLS = json.loads(TEXT)["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
TREES = [ast.parse(re.sub(r"^%.*$", "", code, flags=re.M)) for code in CODE]


def nodes(kind):
    return [node for tree in TREES for node in ast.walk(tree) if isinstance(node, kind)]


def test_it_is_small_and_has_outputs_of_one_run_from_the_top():
    assert NOTEBOOK.stat().st_size < 300_000
    assert [cell["execution_count"] for cell in CELLS if cell["cell_type"] == "code"] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CELLS for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_it_says_nothing_about_the_machine_it_ran_on():
    shown = json.dumps(
        [{**cell, "outputs": [one for one in cell.get("outputs", ()) if "text" in one]} for cell in CELLS]
    )
    assert not re.search(r"/(home|root|tmp|work|Users)/", shown)


def test_what_it_imports_exists():
    ours = [node for node in nodes(ast.ImportFrom) if (ROOT / node.module.partition(".")[0]).is_dir()]
    assert ours
    for node in ours:
        module = importlib.import_module(node.module)
        assert all(hasattr(module, name.name) for name in node.names), node.module


def test_options_of_the_method_exist():
    [call] = [node for node in nodes(ast.Call) if isinstance(node.func, ast.Attribute) and node.func.attr == "for_data"]
    given = {keyword.arg for keyword in call.keywords}
    assert given
    assert given <= set(AttentionRNN.options())


@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if cell["cell_type"] == "markdown"], ids=lambda cell: cell["id"]
)
def test_pages_it_links_exist(cell):
    for target in re.findall(r"\]\(([^)#]+)", "".join(cell["source"])):
        assert (NOTEBOOK.parent / target).is_file(), target
