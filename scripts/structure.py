"""Measures the structure of the code base against its limits: ``python -m scripts.structure``.

Prints a table of measures, and below it what breaks a limit. The exit code is 1 when a limit is broken. Nothing is
imported: everything is read from the syntax trees and the text of the files.
"""

import ast
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.constructors import body_lines, find_constructor, own_arguments, positional_arguments

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    "core",
    "metrics",
    "networks",
    "datamodules",
    "lightning_modules",
    "reporting",
    "callbacks",
    "commands",
    "cli",
)
"""Packages from the lowest to the highest; each may import those before it."""
RUN = 4
"""So many lines in a row that stand elsewhere, too, count as repeated."""
MAX_ARGUMENTS = 15
MAX_CONSTRUCTOR = 40
MAX_FILE = 400


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table.

    Attributes:
        name: what is counted.
        value: the count or percentage.
        limit: the largest allowed value.
        unit: printed behind the value.
        found: the places that count, or where most of it is.
    """

    name: str
    value: float
    limit: float
    unit: str = ""
    found: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether the value is over the limit."""
        return self.value > self.limit


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file of the project.

    Attributes:
        path: relative to the root.
        module: its dotted name; a package has its own, without ``__init__``.
        text: its content.
        tree: its syntax tree.
    """

    path: Path
    module: str
    text: str
    tree: ast.Module


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's target, wherever in the file it stands.

    Attributes:
        importer: module that imports.
        imported: module of ours that is imported.
        line: line of the statement.
    """

    importer: str
    imported: str
    line: int


def read_sources(root: Path) -> list[Source]:
    """Reads the Python files of the packages."""
    paths = [path for layer in LAYERS for path in sorted((root / layer).rglob("*.py"))]
    paths += [root / "cli.py"] if (root / "cli.py").is_file() else []
    sources = []
    for path in paths:
        text = path.read_text("utf-8")
        relative = path.relative_to(root)
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        sources.append(Source(relative, module, text, ast.parse(text, str(relative))))
    return sources


def find_imports(source: Source, modules: Collection[str]) -> Iterator[Import]:
    """Yields the imports of our own modules, those inside functions and for type checking included.

    Args:
        source: the file.
        modules: dotted names of all modules of ours.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, source)
            # "from package import x": the module x when there is one, otherwise the package
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names]
        else:
            continue
        for name in dict.fromkeys(names):
            if name in modules and name != source.module:
                yield Import(source.module, name, node.lineno)


def _absolute(node: ast.ImportFrom, source: Source) -> str:
    if not node.level:
        return node.module or ""
    package = source.module.split(".")
    up = node.level - (source.path.name == "__init__.py")
    return ".".join([*package[: len(package) - up], *filter(None, [node.module])])


def find_circles(imports: Sequence[Import]) -> list[tuple[str, ...]]:
    """Groups of modules that import each other, directly or through others.

    >>> find_circles([Import("a", "b", 1), Import("b", "a", 1), Import("b", "c", 2)])
    [('a', 'b')]
    """
    graph: dict[str, set[str]] = defaultdict(set)
    for item in imports:
        graph[item.importer].add(item.imported)
    reached = {module: _reachable(module, graph) for module in list(graph)}
    circles = {
        tuple(sorted(other for other in reached[module] if module in reached.get(other, ())))
        for module in reached
        if module in reached[module]
    }
    return sorted(circles)


def _reachable(module: str, graph: Mapping[str, set[str]]) -> set[str]:
    """All that a module imports, directly or through others."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        new = graph.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def find_upward(imports: Sequence[Import]) -> list[Import]:
    """Imports of a higher layer."""
    rank = {layer: number for number, layer in enumerate(LAYERS)}
    return [item for item in imports if rank[item.imported.split(".")[0]] > rank[item.importer.split(".")[0]]]


def python_lines(source: Source) -> list[str]:
    """The lines that can count as copied: no blank lines, imports, comments or lone punctuation."""
    skipped: set[int] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.text.splitlines(), 1)
    return _that_say_something(line for number, line in lines if number not in skipped)


def yaml_lines(text: str) -> list[str]:
    r"""The lines of a YAML file that can count as copied: no blank lines, comments or keys that only open a block.

    >>> yaml_lines("# widths\nmodel:\n  init_args:\n    lr: 0.1  # high")
    ['lr: 0.1']
    """
    lines = _that_say_something(re.sub(r"\s#.*", "", line) for line in text.splitlines())
    return [line for line in lines if not line.endswith(":")]


def _that_say_something(lines: Iterable[str]) -> list[str]:
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if re.search(r"\w", line) and not line.startswith("#")]


def find_repeated(files: dict[str, list[str]]) -> dict[str, set[int]]:
    """Finds the lines in runs of `RUN` or more that stand in another file, too.

    Args:
        files: name to lines.

    Returns:
        Name to positions of such lines.

    >>> find_repeated({"a": list("12345x"), "b": list("y12345"), "c": list("123")})
    {'a': {0, 1, 2, 3, 4}, 'b': {1, 2, 3, 4, 5}, 'c': set()}
    """
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in files.items():
        for start in range(len(lines) - RUN + 1):
            places[tuple(lines[start : start + RUN])].append((name, start))
    repeated: dict[str, set[int]] = {name: set() for name in files}
    for found in places.values():
        if len({name for name, _ in found}) > 1:
            for name, start in found:
                repeated[name].update(range(start, start + RUN))
    return repeated


def share_measure(name: str, files: dict[str, list[str]], limit: float) -> Measure:
    """The share of repeated lines as a row of the table."""
    repeated = find_repeated(files)
    total = sum(map(len, files.values()))
    value = 100 * sum(map(len, repeated.values())) / max(total, 1)
    most = sorted(repeated, key=lambda item: -len(repeated[item]))
    found = [f"{item}: {len(repeated[item])} of {len(files[item])} lines" for item in most if repeated[item]]
    return Measure(name, value, limit, " %", tuple(found))


def count_measure(name: str, found: Sequence[str], limit: int = 0) -> Measure:
    """The number of places as a row of the table."""
    return Measure(name, len(found), limit, found=tuple(found))


def import_measures(sources: Sequence[Source]) -> list[Measure]:
    """Circles and imports of higher layers."""
    modules = {source.module for source in sources}
    imports = [item for source in sources for item in find_imports(source, modules)]
    upward = [f"{item.importer}, line {item.line}: {item.imported}" for item in find_upward(imports)]
    circles = [", ".join(circle) for circle in find_circles(imports)]
    return [count_measure("import circles", circles), count_measure("upward imports", upward)]


def class_measures(sources: Sequence[Source]) -> list[Measure]:
    """Sizes of constructors."""
    crowded, long, by_place = [], [], []
    for source in sources:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ClassDef):
                continue
            place, arguments, constructor = f"{source.path}: {node.name}", own_arguments(node), find_constructor(node)
            if arguments > MAX_ARGUMENTS:
                crowded.append(f"{place}, {arguments} arguments")
            if names := positional_arguments(node):
                by_place.append(f"{place}, {', '.join(names)}")
            if constructor is not None and body_lines(constructor) > MAX_CONSTRUCTOR:
                long.append(f"{place}, {body_lines(constructor)} lines")
    return [
        count_measure(f"classes with more than {MAX_ARGUMENTS} own arguments", crowded),
        count_measure("constructors with arguments by place", by_place),
        count_measure(f"constructor bodies over {MAX_CONSTRUCTOR} lines", long),
    ]


def base_measures(sources: Sequence[Source]) -> list[Measure]:
    """The most classes of ours that stand one above the other over a class that has no heirs.

    Data modules may have one more: what is common to all data sets is itself put together of three concerns.
    """
    measures = []
    for package, name, limit in (("lightning_modules", "modules", 2), ("datamodules", "data modules", 3)):
        nodes = [
            node
            for source in sources
            if source.path.parts[0] == package
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ClassDef)
        ]
        bases = {node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases] for node in nodes}
        heirs = set(bases) - {base for own in bases.values() for base in own}
        levels = {heir: _levels(heir, bases) for heir in sorted(heirs)}
        highest = max(levels.values(), default=0)
        found = tuple(f"{heir}: {count} levels" for heir, count in levels.items() if count == highest)
        measures.append(Measure(f"levels of bases, {name}", highest, limit, found=found))
    return measures


def _levels(name: str, bases: Mapping[str, Sequence[str]]) -> int:
    """Classes of ours on the longest way up from a class, itself left aside."""
    return max((1 + _levels(base, bases) for base in bases[name] if base in bases), default=0)


def copy_measures(root: Path, sources: Sequence[Source]) -> list[Measure]:
    """Repeated lines of modules, data modules and experiments."""
    measures = []
    for package in ("lightning_modules", "datamodules"):
        files = {str(item.path): python_lines(item) for item in sources if item.path.parts[0] == package}
        measures.append(share_measure(f"repeated lines, {package}", files, 3))
    experiments = {
        str(path.relative_to(root)): yaml_lines(path.read_text("utf-8"))
        for path in sorted((root / "experiments").rglob("*.yaml"))
    }
    measures.append(share_measure("repeated lines, experiments", experiments, 10))
    return measures


def file_measures(root: Path, sources: Sequence[Source]) -> list[Measure]:
    """Sizes of files and packages, and whether tests stand where a reader looks for them."""
    own = ("tests", "scripts", "benchmarks")
    lengths = {source.path: source.text.count("\n") for source in sources}
    for path in (path for folder in own for path in (root / folder).rglob("*.py")):
        lengths[path.relative_to(root)] = path.read_text("utf-8").count("\n")
    long = [f"{path}, {lines} lines" for path, lines in lengths.items() if lines > MAX_FILE]
    packages: dict[Path, int] = defaultdict(int)
    for source in sources:
        if source.path.parent != Path():
            packages[source.path.parent] += 1
    largest = sorted(packages, key=lambda item: -packages[item])
    tests = {path.parent.relative_to(root / "tests") for path in (root / "tests").rglob("*.py")}
    # a program, which has a __main__.py, tests the whole and mirrors nothing
    programs = {path.parent.relative_to(root / "tests") for path in (root / "tests").rglob("__main__.py")}
    stray = [f"tests/{folder}" for folder in sorted(tests - programs) if not any((root / folder).glob("*.*"))]
    return [
        count_measure(f"files over {MAX_FILE} lines", long),
        Measure(
            "files of the median package",
            statistics.median(packages.values()),
            9,
            found=tuple(f"{folder}: {packages[folder]} files" for folder in largest),
        ),
        count_measure("test folders that mirror no folder", stray),
    ]


def measure(root: Path = ROOT) -> list[Measure]:
    """All measures of a checkout.

    Args:
        root: its folder.
    """
    sources = read_sources(root)
    return [
        *import_measures(sources),
        *class_measures(sources),
        *base_measures(sources),
        *copy_measures(root, sources),
        *file_measures(root, sources),
    ]


def main(say: Callable[[str], None] = print) -> int:
    """Prints the table; returns 1 when a limit is broken.

    Args:
        say: gets each line.
    """
    measures = measure()
    width = max(len(item.name) for item in measures)
    say(f"{'measure':{width}}  {'value':>7}  {'limit':>7}")
    for item in measures:
        value, limit = (f"{number:.3g}{item.unit}" for number in (item.value, item.limit))
        say(f"{item.name:{width}}  {value:>7}  {limit:>7}{'  broken' if item.broken else ''}")
    for item in measures:
        if item.broken:
            say(f"\n{item.name}:")
            for place in item.found:
                say(f"  {place}")
    return int(any(item.broken for item in measures))


if __name__ == "__main__":
    sys.exit(main())
