"""Resolves a recipe: fills in its variables and references and puts its stages in running order."""

import fnmatch
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from commands.names import COMMANDS, TRAINER_COMMANDS
from commands.recipes.reading import as_text, near, read_texts
from core.errors import UserError
from core.renamed import renamed_row
from core.safe_yaml import parse_yaml

_REFERENCE = re.compile(r"(?<!\$)\$\{([^${}]*)\}")
_ENVIRONMENT = re.compile(r"oc\.env:(\w+)(?:,(.*))?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][\w+-]*")
BASELINE = "baseline: "
"""Prefix in `summary.compare` of a baseline of the other stage."""
_OLD_BASELINE = "floor: "
"""The prefix of earlier versions, still accepted."""
_DEPTH = 20
"""Nested references are followed up to this depth; deeper nesting is taken for a cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage whose references are resolved.

    Attributes:
        name: name of the stage and of its run folder.
        command: arguments of ``python cli.py``.
        key: the same arguments with a placeholder for the recipe's folder, so that moving the recipe changes nothing.
        run: its run folder.
        needs: stages whose results it uses.
        inputs: further files and folders that it depends on.
        outputs: files that it must write into its run folder.
        resumes: whether the command resumes by itself when it is run again in the folder of an interrupted run.
    """

    name: str
    command: tuple[str, ...]
    key: tuple[str, ...]
    run: Path
    needs: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    resumes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the table at the end shows.

    Attributes:
        rows: names or patterns of stages; empty: all stages with metrics.
        metrics: its columns; empty: those of the stages.
        compare: pairs of stages for the paired bootstrap; the first may be a baseline of the second, "baseline: NAME".
    """

    rows: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    compare: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe whose variables are filled in.

    Attributes:
        path: its file.
        folder: where the stages' run folders are.
        variables: name to text.
        stages: in the order in which they run.
        summary: the table at the end.
    """

    path: Path
    folder: Path
    variables: Mapping[str, str]
    stages: tuple[Stage, ...]
    summary: Summary


def resolve(document: Mapping[str, Any], path: Path, given: Mapping[str, str], base: Path) -> Recipe:
    """Fills in variables and references.

    Args:
        document: from `commands.recipes.reading.read_document`.
        path: its file, for messages.
        given: variables from the command line.
        base: folder of the recipe; the stages' folders are below its ``seed-N`` if the recipe has a seed.

    Raises:
        UserError: an unknown variable, stage or command, or stages that depend on each other in a cycle.
    """
    variables = _variables(document.get("vars") or {}, given, path)
    folder = base / f"seed-{variables['seed']}" if "seed" in variables else base
    bodies = _expand(document["stages"], variables, path)
    places = {name: folder / name for name in bodies}
    keys = {name: Path("RECIPE") / name for name in bodies}  # the same wherever the recipe's folder is
    stages = {
        name: _stage(
            name,
            body,
            _Scope(variables=variables, places=places, path=path),
            _Scope(variables=variables, places=keys, path=path),
        )
        for name, body in bodies.items()
    }
    return Recipe(
        path=path,
        folder=folder,
        variables=variables,
        stages=_ordered(stages, path),
        summary=_summary(document.get("summary") or {}, stages, path),
    )


def _variables(section: Mapping[Any, Any], given: Mapping[str, str], path: Path) -> dict[str, str]:
    for name in given:
        if name not in section:
            raise UserError(f"{path} has no variable '{name}'{near(name, section)}")
    variables: dict[str, str] = {}
    for name, value in section.items():
        if not _NAME.fullmatch(str(name)) or name == "run":
            raise UserError(
                f"{path}: vars: '{name}' cannot be a name: take letters, digits, '_' and '-', and not 'run'"
            )
        # a variable may use those above it
        variables[str(name)] = (
            given[name]
            if name in given
            else _Scope(variables=variables, places={}, path=path).fill(as_text(value), f"variable '{name}'")
        )
    return variables


def _expand(stages: Mapping[Any, Any], variables: Mapping[str, str], path: Path) -> dict[str, Mapping[str, Any]]:
    """Expands each stage into one stage per combination of its ``for`` values."""
    bodies: dict[str, Mapping[str, Any]] = {}
    for template, body in stages.items():
        loop = _loop(
            body.get("for") or {}, _Scope(variables=variables, places={}, path=path), f"stage '{template}': for"
        )
        for combination in itertools.product(*loop.values()):
            values = {str(key): as_text(value) for key, value in zip(loop, combination, strict=True)}
            name = _substitute(str(template), values)
            if "$" in name:
                name = _Scope(variables=variables, places={}, path=path).fill(name, f"stage '{template}'")
            if not _NAME.fullmatch(name) or name in bodies or name in variables:
                reason = "there twice" if name in bodies else "a variable's" if name in variables else "no folder's"
                raise UserError(f"{path}: stage '{name}': the name is {reason}: take another of letters, digits, '_+-'")
            bodies[name] = {key: _substitute(value, values) for key, value in body.items() if key != "for"}
    return bodies


def _substitute(value: Any, values: Mapping[str, str]) -> Any:
    """Replaces references to ``for`` values in every string; other references stay."""
    if isinstance(value, list):
        return [_substitute(item, values) for item in value]
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda found: values.get(found[1], found[0]), value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """What a reference may name: variables, and stages with their run folders."""

    variables: Mapping[str, str]
    places: Mapping[str, Path]
    path: Path
    run: Path | None = None

    def fill(self, text: str, where: str, needs: list[str] | None = None) -> str:
        """Replaces every reference in a string and appends the stages it names to `needs`."""
        for _ in range(_DEPTH):
            filled = _REFERENCE.sub(lambda found: self._value(found[1].strip(), where, needs), text)
            if filled == text:
                return text.replace("$${", "${")
            text = filled
        raise UserError(f"{self.path}: {where}: references form a cycle: {text:.80}")

    def words(self, word: str, where: str, needs: list[str]) -> list[str]:
        """Fills in one argument; ``${PATTERN.run}`` with a wildcard becomes one argument per matching stage."""
        found = re.fullmatch(r"\$\{([^${}]*[*?][^${}]*)\.run\}(.*)", word)
        if found is None:
            return [self.fill(word, where, needs)]
        names = fnmatch.filter(self.places, found[1])
        if self.run is not None:
            names = [name for name in names if self.places[name] != self.run]
        if not names:
            raise UserError(f"{self.path}: {where}: no stage matches '{found[1]}'{near(found[1], self.places)}")
        return [self.fill(f"${{{name}.run}}{found[2]}", where, needs) for name in names]

    def _value(self, name: str, where: str, needs: list[str] | None) -> str:
        environment = _ENVIRONMENT.fullmatch(name)
        if environment is not None:
            value = os.environ.get(environment[1], environment[2])
            if value is None:
                raise UserError(
                    f"{self.path}: {where}: the environment has no {environment[1]}: export {environment[1]}=..."
                )
            return value
        if name in self.variables:
            return self.variables[name]
        if name == "run" and self.run is not None:
            return str(self.run)
        stage = name.removesuffix(".run")
        if name.endswith(".run") and stage in self.places:
            if needs is not None:
                needs.append(stage)
            return str(self.places[stage])
        known = [*self.variables, "run", *(f"{item}.run" for item in self.places)]
        raise UserError(f"{self.path}: {where}: '${{{name}}}' is unknown{near(name, known)}")


def _loop(section: Any, scope: _Scope, where: str) -> dict[str, list[Any]]:
    """The names and values of a ``for``; a string is filled in and parsed as a list."""
    if not isinstance(section, dict):
        raise UserError(f"{scope.path}: {where}: expected 'NAME: [value, ...]', found {section!r:.60}")
    loop: dict[str, list[Any]] = {}
    for name, values in section.items():
        if name in scope.variables:
            raise UserError(f"{scope.path}: {where}: '{name}' is a variable of the recipe: take another name")
        listed = parse_yaml(scope.fill(values, where), f"{scope.path}: {where}") if isinstance(values, str) else values
        if not isinstance(listed, list) or not listed:
            raise UserError(f"{scope.path}: {where}: expected '{name}: [value, ...]', found {listed!r:.60}")
        loop[str(name)] = listed
    return loop


def _stage(name: str, body: Mapping[str, Any], scope: _Scope, open_scope: _Scope) -> Stage:
    path = scope.path
    needs: list[str] = []
    scope, open_scope = (replace(item, run=item.places[name]) for item in (scope, open_scope))
    where = f"stage '{name}'"
    words = read_texts(body["command"], f"{where}: command", path)
    own_folder = any("${run}" in word for word in words)
    command = [text for word in words for text in scope.words(word, where, needs)]
    key = [text for word in words for text in open_scope.words(word, where, [])]
    _check_command(command, where, path)
    if command[0] in TRAINER_COMMANDS and not own_folder:
        command += ["--run_dir", str(scope.run)]
    inputs = [scope.fill(text, where, needs) for text in read_texts(body.get("inputs") or [], f"{where}: inputs", path)]
    outputs = [scope.fill(text, where) for text in read_texts(body.get("outputs") or [], f"{where}: outputs", path)]
    after = read_texts(body.get("after") or [], f"{where}: after", path)
    for other in after:
        if other not in scope.places:
            raise UserError(f"{path}: {where}: after: there is no stage '{other}'{near(other, scope.places)}")
    assert scope.run is not None
    return Stage(
        name=name,
        command=tuple(command),
        key=tuple(key),
        run=scope.run,
        needs=tuple(dict.fromkeys([*needs, *after])),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        resumes=bool(body.get("resumes", False)),
    )


def _check_command(command: Sequence[str], where: str, path: Path) -> None:
    if not command:
        raise UserError(f"{path}: {where}: command has no word; expected words of cli.py, such as 'fit --config FILE'")
    if command[0] in ("recipe", "resume"):
        raise UserError(
            f"{path}: {where}: '{command[0]}' cannot be a stage: name the stages here; fit resumes by itself"
        )
    known = [*TRAINER_COMMANDS, *COMMANDS]
    if command[0] not in known:
        raise UserError(f"{path}: {where}: there is no command '{command[0]}'{near(command[0], known)}")


def _ordered(stages: Mapping[str, Stage], path: Path) -> tuple[Stage, ...]:
    """Sorts the stages so that each runs after those it needs, otherwise in the order of the file."""
    done: dict[str, Stage] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " -> ".join([*above[above.index(name) :], name])
            raise UserError(f"{path}: stages depend on each other in a cycle: {circle}; remove one of the references")
        if name not in done:
            for other in stages[name].needs:
                visit(other, (*above, name))
            done[name] = stages[name]

    for name in stages:
        visit(name, ())
    return tuple(done.values())


def _summary(section: Mapping[str, Any], stages: Mapping[str, Stage], path: Path) -> Summary:
    rows = read_texts(section.get("rows") or [], "summary: rows", path)
    pairs = section.get("compare") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UserError(f"{path}: summary: compare: expected pairs such as [[a, b]], found {pairs!r:.60}")
    pairs = [(_baseline_name(str(first)), str(second)) for first, second in pairs]
    named = [name for pair in pairs for name in pair if not (name is pair[0] and name.startswith(BASELINE))]
    for pattern in [*rows, *named]:
        if str(pattern) not in stages and not (pattern in rows and fnmatch.filter(stages, str(pattern))):
            raise UserError(f"{path}: summary: there is no stage '{pattern}'{near(str(pattern), stages)}")
    metrics = read_texts(section.get("metrics") or [], "summary: metrics", path)
    return Summary(rows=tuple(rows), metrics=tuple(metrics), compare=tuple(pairs))


def _baseline_name(name: str) -> str:
    """The first name of a `summary.compare` pair, with the current prefix and row names."""
    if not name.startswith((BASELINE, _OLD_BASELINE)):
        return name
    return BASELINE + renamed_row(name.partition(": ")[2])
