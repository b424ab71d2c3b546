"""The model card of an exported run: what it is, its figures beside the baselines, how it was made, its limits."""

import shlex
from pathlib import Path
from typing import Any

from commands.comparison.results import Result
from commands.run_report.content import evaluation_of, evaluations_of
from core.exported import without_folders
from metrics.baselines.flags import baseline_warning
from reporting.loggers import read_facts
from reporting.markdown import code, plain, table

_PYTHON = """```python
from lightning_modules import {loader}

model = {loader}("{name}")  # this folder, or the repository that holds it
model.{call}
```"""


def write_card(
    run: Path | None,
    checkpoint: dict[str, Any],
    *,
    name: str,
    licence: str,
    trust: bool = False,
    place: str = "FOLDER",
    usage: str | None = None,
) -> str:
    """Writes the card.

    Args:
        run: run folder; None: only the checkpoint is there.
        checkpoint: its entries.
        name: name of the model.
        licence: identifier as the hub knows it, such as "mit".
        trust: the configuration of the run may name anybody's classes.
        place: folder or repository, as the example names it.
        usage: how the model is used; None: by this project.

    Raises:
        UserError: a file of the run is broken.
    """
    inference = checkpoint["inference"]
    captions = "decoding" in inference
    tags = ["image-to-text" if captions else "image-classification", "pytorch", "lightning", str(inference["method"])]
    lines = ["---", "library_name: captioners", f"license: {licence}", f"tags: [{', '.join(tags)}]", "---", ""]
    lines += [f"# {plain(name)}", "", plain(_about(checkpoint, captions)), ""]
    if not captions:
        lines += ["Labels: " + ", ".join(map(plain, inference.get("label_names", ()))) + ".", ""]
    results = evaluations_of(run, trust) if run is not None else []
    for result in results:
        lines += _figures(result)
    if not results:
        lines += ["## Results", "", "It was not evaluated.", ""]
    lines += ["## Use", "", _usage(captions, inference, place) if usage is None else usage, ""]
    if run is not None:
        lines += _made(run)
    return "\n".join([*lines, *_limits(captions)]) + "\n"


def _about(checkpoint: dict[str, Any], captions: bool) -> str:
    count = sum(value.numel() for value in checkpoint["state_dict"].values())
    does = (
        "captions images"
        if captions
        else "labels images"
        if checkpoint["inference"].get("reads_images", True)
        else "labels captions"
    )
    return f"A model that {does}, of method {checkpoint['inference']['method']}, with {count:,} numbers."


def _figures(result: Result) -> list[str]:
    """The metrics of an evaluation with the baselines and upper bounds below them."""
    shown = evaluation_of(result)
    rows = {"this model": result.metrics, **result.baselines}
    cells = [[name, *(item.format(row.get(item.key)) for item in shown.metrics)] for name, row in rows.items()]
    lines = [f"## Results on {result.split}", "", *table(["", *(item.title for item in shown.metrics)], cells), ""]
    warning = baseline_warning("this model", result.metrics, result.baselines)
    return [*lines, plain(warning), ""] if warning else lines


def _usage(captions: bool, inference: dict[str, Any], place: str) -> str:
    loader = "load_captioner" if captions else "load_classifier"
    image, text = '"image.jpg"', '"a caption"'
    given = [image] if captions or inference.get("reads_images", True) else []
    given += [f"texts={text}"] if inference.get("reads_text", False) else []
    call = f"caption({image})" if captions else f"label({', '.join(given)})"
    return _PYTHON.format(loader=loader, call=call, name=place)


def _made(run: Path) -> list[str]:
    """Command, commit and versions of the training."""
    facts = read_facts(run)
    command = facts.get("command")
    words = [command] if isinstance(command, str) else []
    rows = {
        "command": " ".join(_named(word) for line in words for word in shlex.split(line)),
        "commit": str(facts.get("commit") or ""),
        "date": str(facts.get("started") or "")[:10],
        "versions": ", ".join(f"{name} {number}" for name, number in (facts.get("versions") or {}).items()),
    }
    return ["## How it was trained", "", *(f"- {name}: {code(value)}" for name, value in rows.items() if value), ""]


def _named(word: str) -> str:
    """A word of a command line without the folders of the machine."""
    option, equals, value = word.partition("=")
    return f"{option}=" + str(without_folders({"": value})[""]) if equals else str(without_folders({"": word})[""])


def _limits(captions: bool) -> list[str]:
    what = "captions" if captions else "labels"
    return [
        "## Limits",
        "",
        f"It writes {what} of the kind that its training data has, in its language, and repeats its errors.",
        "On other kinds of images its figures do not hold. Read the baselines above before believing a figure:",
        "what scores near them does little with the image. Do not use it for decisions about people.",
    ]
