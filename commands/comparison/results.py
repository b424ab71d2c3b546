"""Reading what runs have written: metrics, curves, predictions, settings, and the data that they were tested on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from commands.comparison.data import Section, data_of_files, evaluated_data, option_values, options
from commands.comparison.metrics_table import OWN, Scores, merge_baselines, read_metrics
from commands.stage_state import command_words, read_state
from core.errors import UserError, command
from core.inputs import parse_json, read_text, shown
from core.metric_rows import read_metric_rows
from core.renamed import renamed_metric
from core.safe_yaml import read_yaml
from core.text import visible
from core.trust import check_trusted, is_own
from metrics.names import deciding_key, metric

Split = Literal["test", "val"]
Captions = dict[str, str]
Probabilities = dict[str, dict[str, float]]
"""Image id to label to probability."""
_COMMANDS: dict[str, Split] = {"test": "test", "predict": "test", "validate": "val"}
_SAME_DATA = tuple(
    f"data.{name}"
    for name in (
        "class_path",
        "init_args.root",
        "init_args.captions_file",
        "init_args.split_seed",
        "init_args.scene_seed",
        "init_args.num_test",
        "init_args.evaluate_on",
    )
)
"""Settings of a data module that decide which images are tested, as the tokeniser, say, does not."""


@dataclass(slots=True, kw_only=True)
class Result:
    """One run, or one evaluation of a run.

    Attributes:
        name: short and unique among those that are compared.
        folder: where metrics and predictions are.
        run: the training run behind them; None when it cannot be found.
        split: what was evaluated.
        metrics: its own.
        baselines: baselines and upper bounds beside them.
        config: configuration of the training run; its part "data" is that of the evaluation.
        baseline: a row of `baselines` whose captions are read instead of the run's.
    """

    name: str
    folder: Path
    run: Path | None
    split: Split
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    config: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration, dotted name to value; empty when it is unknown."""
        return flat(self.config) if self.config else {}

    @property
    def data(self) -> Section:
        """Settings of the data."""
        section = self.config.get("data")
        return section if isinstance(section, dict) else {}


def read_results(paths: Sequence[str], split: Split | None, trust: bool = False) -> list[Result]:
    """Finds the evaluation that each path means.

    A run folder means its last evaluation on the split: one by ``test`` if all have it, else by ``validate``, else
    the best validation while training.

    Args:
        paths: run folders, evaluation folders, stages of recipes.
        split: None: test when every one has a test, else val.
        trust: configurations of runs may name anybody's classes.

    Raises:
        UserError: a path holds no run, or a run was not evaluated on the split.
    """
    folders = [Path(path) for path in dict.fromkeys(str(Path(path)) for path in paths)]
    for folder in folders:
        if not any((folder / name).exists() for name in ("config.yaml", "metrics.json", "metrics.csv")):
            raise UserError(f"'{folder}' is no run and no evaluation: give a folder that fit or test printed last")
    if split is None:
        split = "test" if all(evaluation_folder(folder, "test") for folder in folders) else "val"
    return [_read(folder, name, split, trust) for folder, name in zip(folders, short_names(folders), strict=True)]


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that are unique.

    >>> short_names([Path("runs/a/one"), Path("runs/b/one/eval/test"), Path("runs/b/two")])
    ['a/one', 'b/one', 'two']
    """
    runs = [folder.parent.parent if folder.parent.name == "eval" else folder for folder in folders]
    if len(set(runs)) < len(runs):  # two evaluations of one run
        runs = list(folders)
    parts = [folder.absolute().parts for folder in runs]
    names = []
    for own in parts:
        length = 1
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append(visible("/".join(own[-length:])))
    return names


def evaluation_folder(folder: Path, split: Split) -> Path | None:
    """Where a folder's metrics of a split are; None when there are none."""
    if (folder / "metrics.json").is_file():
        return folder if _split_of(folder) == split else None
    names = [name for name, evaluated in _COMMANDS.items() if evaluated == split]
    found = [path for name in names for path in folder.glob(f"eval/{name}*/metrics.json")]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _split_of(folder: Path) -> Split:
    """The split that an evaluation's folder is about, by the command that wrote it."""
    state = read_state(folder)
    words = command_words(state, folder) if state else [folder.name]
    name = re.split(r"[-_]", words[0])[0] if words else ""
    return "val" if "--data.init_args.evaluate_on=val" in words else _COMMANDS.get(name, "test")


def _read(folder: Path, name: str, split: Split, trust: bool) -> Result:
    place = evaluation_folder(folder, split)
    if place is not None:
        rows = read_metrics(place)
        own = rows.pop(OWN, {})
        run, words = _run_behind(place)
        config = read_config(run)
        if not trust:
            _check_trusted(run, config, words)
        section = config.get("data")
        config["data"] = evaluated_data(section if isinstance(section, dict) else {}, words)
        return Result(name=name, folder=place, run=run, split=split, metrics=own, baselines=rows, config=config)
    metrics = best_validation(folder) if split == "val" else {}
    if not metrics:
        evaluate = command("test" if split == "test" else "validate", "--ckpt_path", folder)
        raise UserError(f"'{folder}' was not evaluated on the {split} split: run {evaluate}, or choose another --split")
    config = read_config(folder)
    if not trust:
        _check_trusted(folder, config, ())
    return Result(name=name, folder=folder, run=folder, split=split, metrics=metrics, baselines={}, config=config)


def _check_trusted(run: Path | None, config: Mapping[str, Any], words: Sequence[str]) -> None:
    """Refuses to build the data of a stranger's run from classes of others, see `core.trust`."""
    if run is None or not is_own(run / "config.yaml"):
        check_trusted(dict(config), f"{run}/config.yaml")
        check_trusted([value for _, value in options(words)], f"the command of '{run}'")
        if files := option_values(words, "--config"):
            check_trusted(data_of_files(files), f"files of the command of '{run}'")


def _run_behind(place: Path) -> tuple[Path | None, list[str]]:
    """The training run that was evaluated, and the words of the evaluation as far as they are known."""
    if (place / "config.yaml").is_file():
        return place, []
    if place.parent.name == "eval":
        return place.parent.parent, []
    state = read_state(place)
    words = command_words(state, place) if state else []
    given = option_values(words, "--ckpt_path")
    if not given:
        return None, words
    path = Path(given[-1])
    run = path.parent.parent if path.suffix == ".ckpt" else path
    if not (run / "config.yaml").is_file():  # a recipe's folder that was moved
        run = place.parent / run.name
    return (run if (run / "config.yaml").is_file() else None), words


def read_config(run: Path | None) -> dict[str, Any]:
    """A run's saved configuration; empty when there is none."""
    path = None if run is None else run / "config.yaml"
    if path is None or not path.is_file():
        return {}
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected the configuration of a run, found {shown(content)}; take it from another run"
        )
    return {str(key): value for key, value in content.items()}


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """A tree of dicts with dotted names.

    >>> flat({"model": {"lr": 0.1}})
    {'model.lr': 0.1}
    """
    if not isinstance(value, dict):
        return {place: value}
    inner = (flat(part, f"{place}.{key}" if place else str(key)) for key, part in value.items())
    return {name: leaf for part in inner for name, leaf in part.items()}


def curves(run: Path | None) -> dict[str, list[tuple[float, float]]]:
    """What a run logged: metric to (step, value), as in its ``metrics.csv``.

    Raises:
        UserError: the file is broken.
    """
    path = None if run is None else run / "metrics.csv"
    if path is None or not path.is_file() or not path.stat().st_size:
        return {}
    columns, rows = read_metric_rows(path)
    found: dict[str, list[tuple[float, float]]] = {}
    for key in (name for name in columns if name not in ("step", "epoch")):
        points = [(float(row["step"]), float(row[key])) for row in rows if row["step"] and row[key]]
        if points:  # an old and a new name of one metric are one curve
            found.setdefault(renamed_metric(key), []).extend(points)
    return found


def best_validation(run: Path) -> dict[str, float]:
    """Metrics of the best validation, by the metric that decides; empty without one."""
    logged = {key.removeprefix("val/"): points for key, points in curves(run).items() if key.startswith("val/")}
    monitor = deciding_key(logged)
    if monitor is None:
        return {}
    best = metric(monitor).best(value for _, value in logged[monitor])
    step = next(step for step, value in logged[monitor] if value == best)
    return {key: dict(points)[step] for key, points in logged.items() if step in dict(points)}


def read_predictions(result: Result) -> "tuple[Captions, Probabilities]":
    """Captions or probabilities of labels by image id; both empty without ``predictions.json``.

    Raises:
        UserError: the file is broken or of another format, or a baseline has no captions.
    """
    path = result.folder / "predictions.json" if result.baseline is None else _baseline_captions(result)
    if not path.is_file():
        return {}, {}
    captions: Captions = {}
    probabilities: Probabilities = {}
    records = parse_json(read_text(path), path)
    try:
        for record in records:
            name = str(record["image_id"])
            if "caption" in record:
                captions[name] = str(record["caption"])
            else:
                probabilities[name] = {key: float(value) for key, value in record["probabilities"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a file of predictions ({type(error).__name__}: {error}); test the run again"
        ) from error
    return captions, probabilities


def _baseline_captions(result: Result) -> Path:
    """File with the captions of a baseline; earlier versions called its folder ``floors``."""
    from metrics.baselines.captions import baseline_file  # imports scikit-learn

    assert result.baseline is not None
    name = f"{baseline_file(result.baseline)}.json"
    paths = [result.folder / folder / name for folder in ("baselines", "floors")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise UserError(f"{paths[0]}: there are no captions of the row '{result.baseline}': only a test writes them")
    return found


def all_baselines(results: Sequence[Result]) -> dict[str, Scores]:
    """Baselines and upper bounds of the runs; one that differs between runs also has the name of its run."""
    return merge_baselines({result.name: result.baselines for result in results})


def data_differences(results: Sequence[Result]) -> list[str]:
    """Settings by which runs were tested on different data, as "name: a (run), b (run)"."""
    lines = []
    settings = {result.name: result.settings for result in results if result.data}
    for key in _SAME_DATA:
        values = {name: str(known[key]) for name, known in settings.items() if key in known}
        if len(set(values.values())) > 1:
            lines.append(f"{key}: " + ", ".join(f"{value} ({name})" for name, value in values.items()))
    return lines


def differing_settings(results: Sequence[Result]) -> dict[str, list[Any]]:
    """Settings in which runs differ, except seeds: dotted name to a value per run, of a path its last name."""
    settings = [result.settings for result in results]
    found = {}
    for name in dict.fromkeys(name for known in settings for name in known):
        if not name.startswith(("model.", "data.", "trainer.")) or name.endswith("seed"):
            continue
        values = [_short(known.get(name)) for known in settings]
        if any(value != values[0] for value in values):
            found[name] = values
    return found


def _short(value: Any) -> Any:
    """The name of a run or file; other values as they are."""
    if not isinstance(value, str) or "/" not in value:
        return value
    path = Path(value)
    return path.parent.parent.name if path.suffix == ".ckpt" else path.name
