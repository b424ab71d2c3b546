"""Files of sweeps, in the format of W&B: what is searched, by which command, for which metric."""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.errors import UserError
from core.inputs import shown
from core.safe_yaml import read_yaml

Value = str | int | float | bool | None
_KEYS = {
    "program",
    "command",
    "method",
    "metric",
    "parameters",
    "early_terminate",
    "run_cap",
    "name",
    "description",
    "project",
}
_METHODS = ("bayes", "random", "grid")
_DISTRIBUTIONS = (
    "categorical", "constant", "uniform", "q_uniform", "int_uniform", "log_uniform_values", "q_log_uniform_values",
)  # fmt: skip
_PLACE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A setting that is searched.

    Attributes:
        name: name of the option, such as ``model.init_args.lr``.
        choices: its values; None: a range.
        low: lowest value of a range.
        high: highest value of a range.
        step: distance of the values of a range; None: any number.
        log: the logarithm is searched evenly.
        whole: the values are whole numbers.
    """

    name: str
    choices: tuple[Value, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search over settings.

    Attributes:
        name: name of the file.
        command: words before and after the searched options; one of them is ``${args}``.
        method: how settings are chosen.
        metric: name in the log.
        maximize: whether large values are good.
        parameters: what is searched.
        run_cap: number of trials; None: not limited.
        min_iter: values of the metric that a trial logs before it may be stopped; None: none is.
        eta: one of so many trials goes on each time.
    """

    name: str
    command: tuple[str, ...]
    method: Literal["bayes", "random", "grid"]
    metric: str
    maximize: bool
    parameters: tuple[Parameter, ...]
    run_cap: int | None = None
    min_iter: int | None = None
    eta: int = 3

    def words(self, values: Mapping[str, Value]) -> list[str]:
        """The command line of a trial, without ``python cli.py``, as an agent of W&B would make it."""
        args = [f"--{name}={_written(value)}" for name, value in values.items()]
        return [word for place in self.command for word in (args if place == "${args}" else [place])]

    def fingerprint(self) -> str:
        """What the results of trials depend on; equal for equal searches."""
        space = [[one.name, one.choices, one.low, one.high, one.step, one.log, one.whole] for one in self.parameters]
        return json.dumps([self.command, self.metric, self.maximize, space])


def read_sweep(path: Path) -> Sweep:
    """Reads the file of a sweep.

    Raises:
        UserError: the file is missing or damaged, or names something that is not known here.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected the entries of a sweep (program, command, method, metric, parameters)")
    if unknown := sorted(set(map(str, content)) - _KEYS):
        raise UserError(f"{path}: unknown entry {shown(unknown[0])}; expected some of {', '.join(sorted(_KEYS))}")
    method = content.get("method")
    if method not in _METHODS:
        raise UserError(f"{path}: method is {shown(method)}; expected one of {', '.join(_METHODS)}")
    metric = content.get("metric")
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise UserError(f"{path}: metric is {shown(metric)}; expected {{name: val/cider_d, goal: maximize}}")
    goal = metric.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: goal of the metric is {shown(goal)}; expected minimize or maximize")
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: parameters is {shown(given)}; expected options and their values")
    parameters = tuple(_parameter(path, str(name), entry) for name, entry in given.items())
    if method == "grid" and (ranges := [one.name for one in parameters if one.choices is None and one.step is None]):
        raise UserError(f"{path}: a grid needs values, and {ranges[0]} is a range; give values, or method: random")
    min_iter, eta = _halving(path, content.get("early_terminate"))
    return Sweep(
        name=path.stem,
        command=_command(path, content),
        method=method,
        metric=metric["name"],
        maximize=goal == "maximize",
        parameters=parameters,
        run_cap=_count(path, "run_cap", content["run_cap"]) if "run_cap" in content else None,
        min_iter=min_iter,
        eta=eta,
    )


def _command(path: Path, content: Mapping[Any, Any]) -> tuple[str, ...]:
    """The words behind the program, which must be this one."""
    words = content.get("command", ["${env}", "${interpreter}", "${program}", "${args}"])
    expected = f"{path}: command is {shown(words)}; expected [..., ${{program}}, fit, --config, FILE, ${{args}}]"
    if content.get("program") != "cli.py":
        raise UserError(f"{path}: program is {shown(content.get('program'))}; expected cli.py")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(expected)
    if words.count("${program}") != 1 or words.count("${args}") != 1:
        raise UserError(expected)
    rest = words[words.index("${program}") + 1 :]
    places = [found for word in rest for found in _PLACE.findall(word)]
    if rest[:1] != ["fit"] or places != ["args"] or any(word.startswith("--run_dir") for word in rest):
        raise UserError(expected)
    return tuple(rest)


def _parameter(path: Path, name: str, entry: Any) -> Parameter:
    where = f"{path}: parameter {name}"
    if not isinstance(entry, dict) or not entry:
        raise UserError(f"{where} is {shown(entry)}; expected value, values, or min and max")
    if "value" in entry:
        return Parameter(name=name, choices=(_plain(where, entry["value"]),))
    if "values" in entry:
        values = entry["values"]
        if not isinstance(values, list) or not values or "probabilities" in entry:
            raise UserError(f"{where}: expected a list of values, all equally probable, found {shown(entry)}")
        return Parameter(name=name, choices=tuple(_plain(where, value) for value in values))
    low, high = (_number(where, key, entry.get(key)) for key in ("min", "max"))
    whole = isinstance(entry["min"], int) and isinstance(entry["max"], int)
    kind = entry.get("distribution", "int_uniform" if whole else "uniform")
    if kind not in _DISTRIBUTIONS[2:]:
        raise UserError(f"{where}: distribution {shown(kind)} is not known here; expected {', '.join(_DISTRIBUTIONS)}")
    log, step = "log" in kind, _number(where, "q", entry.get("q", 1)) if kind.startswith("q_") else None
    if not low < high or (log and low <= 0) or (step is not None and step <= 0):
        raise UserError(f"{where}: expected min below max, positive for a logarithm, found {shown(entry)}")
    if log and step is not None:  # Optuna has no steps on a logarithmic axis
        if step != 1 or not whole:
            raise UserError(
                f"{where}: steps of {step:g} on a logarithmic axis; only whole numbers have them here (q: 1)"
            )
        return Parameter(name=name, low=low, high=high, log=True, whole=True)
    whole = kind == "int_uniform" or (whole and step is not None and step == int(step))
    return Parameter(name=name, low=low, high=high, step=1 if kind == "int_uniform" else step, log=log, whole=whole)


def _halving(path: Path, entry: Any) -> tuple[int | None, int]:
    if entry is None:
        return None, 3
    if not isinstance(entry, dict) or entry.get("type") != "hyperband" or "min_iter" not in entry:
        raise UserError(f"{path}: early_terminate is {shown(entry)}; expected {{type: hyperband, min_iter: 2, eta: 3}}")
    eta = _count(path, "eta", entry.get("eta", 3))
    if eta < 2:
        raise UserError(f"{path}: eta is {eta}; expected 2 or more")
    return _count(path, "min_iter", entry["min_iter"]), eta


def _count(path: Path, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{path}: {key} is {shown(value)}; expected a whole number from 1 on")
    return value


def _number(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise UserError(f"{where}: {key} is {shown(value)}; expected a number (1.0e-4, with a point)")
    return value


def _plain(where: str, value: Any) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is no value that can be searched")
    if value is not None and not isinstance(value, str | int | float | bool):
        raise UserError(f"{where}: expected texts and numbers as values, found {shown(value)}")
    return value


def _written(value: Value) -> str:
    """A value as YAML reads it back on the command line."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return str(value)
