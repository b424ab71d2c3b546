"""The structure of the code base stays within its limits (`scripts/structure.py`), and what measures it notices."""

import subprocess
import sys
import time
import tomllib

import pytest

from scripts import structure
from tests.conftest import ROOT

MANY = ", ".join(f"a{number}" for number in range(16))
COPIED = "".join(f"    value_{number} = {number}\n" for number in range(5))


@pytest.fixture(scope="module")
def measured():
    start = time.process_time()
    measures = structure.measure(ROOT)
    assert time.process_time() - start < 5
    return {item.name: item for item in measures}


@pytest.mark.parametrize("name", [item.name for item in structure.measure(ROOT)])
def test_limit_holds(measured, name):
    item = measured[name]
    assert item.value <= item.limit, "\n".join(item.found)


def test_a_captioner_needs_at_most_300_lines_of_its_own():
    """Every line of network, module and both YAML files counts, comments and blank ones, too; parts that others can use
    (`networks.decoders`, `networks.layers`) and tests do not."""
    name = "transformer_captioner"
    files = ["networks/captioners/transformer.py", f"lightning_modules/{name}.py"]
    files += [f"experiments/{name}.yaml", f"experiments/offline/{name}.yaml"]
    assert sum((ROOT / file).read_text("utf-8").count("\n") for file in files) <= 300


def test_linter_checks_the_same_layers():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    assert [*reversed(layers), "cli"] == list(structure.LAYERS)
    assert set(settings["root_packages"]) == set(layers)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one module in every package; returns a function that adds a file and measures."""
    for layer in structure.LAYERS[:-1]:
        (tmp_path / layer).mkdir()
        (tmp_path / layer / "__init__.py").write_text("")
    (tmp_path / "cli.py").write_text("import commands\n")

    def measure(files=()):
        for name, text in dict(files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {item.name: item for item in structure.measure(tmp_path) if item.broken}

    return measure


def test_empty_checkout_breaks_nothing(checkout):
    assert checkout() == {}


@pytest.mark.parametrize(
    "statement",
    [
        "import callbacks",
        "from callbacks import x",
        "def f():\n    import callbacks",
        "if X:\n    from callbacks import y",
    ],
)
def test_upward_import_is_found_wherever_it_stands(checkout, statement):
    broken = checkout({"core/a.py": statement})
    assert list(broken) == ["upward imports"]
    assert "core.a, line" in broken["upward imports"].found[0]


def test_circle_is_found_inside_functions(checkout):
    broken = checkout(
        {
            "core/a.py": "from core import b",
            "core/b.py": "def f():\n    from . import c",
            "core/c.py": "from .a import x as y",
        }
    )
    assert broken["import circles"].found == ("core.a, core.b, core.c",)


def test_import_of_a_name_in_a_package_counts_for_the_package(checkout):
    assert "import circles" in checkout({"core/__init__.py": "from core.a import x", "core/a.py": "from core import x"})


def test_constructors_are_measured(checkout):
    body = "        self.x = 1\n" * 41
    broken = checkout(
        {
            "core/a.py": f"class A:\n    def __init__(self, *, {MANY}): ...\n",
            "core/b.py": f"class B:\n    def __init__(self, {MANY[4:]}, **rest): ...\n",
            "core/c.py": 'class C:\n    def __init__(self):\n        """Says.\n\n        more\n        """\n' + body,
            "core/d.py": "@dataclass(frozen=True)\nclass D:\n"
            + "".join(f"    a{number}: int = 0\n" for number in range(16)),
        }
    )
    assert broken["classes with more than 15 own arguments"].found == (
        "core/a.py: A, 16 arguments",
        "core/d.py: D, 16 arguments",
    )
    assert broken["constructor bodies over 40 lines"].found == ("core/c.py: C, 41 lines",)


def test_constructor_arguments_by_place_are_found(checkout):
    head = "@dataclass(frozen=True{})\nclass {}:\n    a: int\n    b: int\n    c: int\n    d: ClassVar[int] = 0\n"
    broken = checkout(
        {
            "core/a.py": "class A:\n    def __init__(self, a, b=1): ...\n",
            "core/b.py": "class B:\n    def __init__(self, a, b, c, *, d): ...\n",
            "core/c.py": head.format("", "C"),
            "core/d.py": "@dataclass\nclass D:\n    a: int\n    b: int = 0\n",
            "core/fine.py": "class E:\n    def __init__(self, a, b, *, c=0, **rest): ...\n"
            + "class F(tuple):\n    def __new__(cls, *args): ...\n"
            + "class G(NamedTuple):\n    a: int\n    b: int\n    c: int\n"
            + head.format(", kw_only=True", "H"),
        }
    )
    assert broken["constructors with arguments by place"].found == (
        "core/a.py: A, b",
        "core/b.py: B, c",
        "core/c.py: C, c",
        "core/d.py: D, b",
    )


def test_towers_of_bases_are_found(checkout):
    files = {
        "lightning_modules/base.py": "class Base(LightningModule): ...\nclass Options(Mixin): ...\n",
        "lightning_modules/kind.py": "class Kind(Options, base.Base): ...\nclass Fine(Options, Kind): ...\n",
    }
    assert checkout(files) == {}
    broken = checkout({"lightning_modules/method.py": "class Middle(Kind[int]): ...\nclass Method(Middle): ...\n"})
    assert broken["levels of bases, modules"].found == ("Method: 3 levels",)


def test_copied_lines_are_found_across_blank_lines_and_comments(checkout):
    other = COPIED.replace("\n", "\n\n    # why\n    (\n    )\n", 2)
    broken = checkout(
        {"lightning_modules/a.py": f"def f():\n{COPIED}", "lightning_modules/b.py": f"def g():\n{other}    x = 1\n"}
    )
    assert broken["repeated lines, lightning_modules"].found == (
        "lightning_modules/a.py: 5 of 6 lines",
        "lightning_modules/b.py: 5 of 7 lines",
    )


def test_copied_imports_do_not_count(checkout):
    lines = "from core import (\n    a,\n    b,\n    c,\n    d,\n)\nimport x\nimport y\nimport z\nimport w\n"
    assert "repeated lines, datamodules" not in checkout({"datamodules/a.py": lines, "datamodules/b.py": lines})


def test_copied_yaml_is_found(checkout, tmp_path):
    text = "model:\n  a: 1\n  b: 2\n  init_args:\n    c: 3  # three\n    d: 4\n"
    for name in ("x", "y/z"):
        path = tmp_path / "experiments" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n{text}{name[0]}: 0\n")
    assert checkout()["repeated lines, experiments"].value == pytest.approx(80)


def test_long_files_and_stray_tests_are_found(checkout):
    broken = checkout({"benchmarks/long.py": "x = 1\n" * 401, "tests/core/test_a.py": "", "tests/gone/test_b.py": ""})
    assert broken["files over 400 lines"].found == ("benchmarks/long.py, 401 lines",)
    assert broken["test folders that mirror no folder"].found == ("tests/gone",)


def test_large_packages_are_found(checkout):
    files = {f"{layer}/a{number}.py": "" for layer in structure.LAYERS[:5] for number in range(9)}
    assert checkout(files)["files of the median package"].value == 10


def test_script_prints_a_table_and_its_exit_code_says_whether_a_limit_is_broken():
    script = [sys.executable, "-m", "scripts.structure"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("measure ")
    assert done.returncode == int(any(item.broken for item in structure.measure(ROOT)))
