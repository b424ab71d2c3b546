"""A captioner as graphs, tables and one file of Python, to be used without this project."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from commands.exporting import standalone
from commands.exporting.card import write_card
from commands.exporting.folders import written_whole
from commands.exporting.graphs import Graphs, capture
from commands.exporting.onnx_files import check_onnx, write_onnx
from commands.exporting.vocabulary import text_table
from core.checkpoints import read_checkpoint
from core.errors import UserError
from lightning_modules.serving import LoadedCaptioner, load_captioner
from networks.encoders.pictures import PictureEncoder

Engine = Literal["onnx", "torch"]
_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
_NEEDS = {"onnx": "onnxruntime", "torch": "torch"}
_USAGE = """    python caption.py picture.jpg

needs numpy, Pillow and {needs}, and nothing of the project that trained it. From Python:

```python
from caption import Captioner

Captioner(".").caption("picture.jpg")
```"""


def write_portable(
    file: Path,
    run: Path | None,
    out: Path,
    *,
    name: str,
    licence: str,
    engine: Engine,
    int8: bool = False,
    reranking: bool = True,
    trust: bool = False,
) -> None:
    """Writes the folder, whole or not at all.

    Args:
        file: checkpoint.
        run: folder of its run; None: there is none.
        out: folder to write.
        name: name of the model.
        licence: licence of the weights.
        engine: engine of the graphs.
        int8: with matrices of 8-bit integers.
        reranking: False: the plain beam search of a run that ranks what it finds anew.
        trust: the configuration of the run may name anybody's classes.

    Raises:
        UserError: the run is no captioner of images, or does something that the folder cannot.
    """
    if engine == "onnx":
        check_onnx()
    model = load_captioner(file)
    _check(model, reranking)
    usage = _USAGE.format(needs=_NEEDS[engine])
    card = write_card(run, read_checkpoint(file), name=name, licence=licence, trust=trust, usage=usage)
    table = text_table(model.tokenizer)
    graphs = capture(model.module.captioner, model.encoder, model.transform.size)
    with written_whole(out) as made:
        names = [part + _SUFFIXES[engine] for part in ("encoder", "step")]
        for program, path, inputs, outputs in zip(
            (graphs.encoder, graphs.step), names, graphs.inputs, graphs.outputs, strict=True
        ):
            if engine == "onnx":
                write_onnx(program, made / path, inputs, outputs, int8=int8)
            else:
                torch.export.save(program, made / path)
        settings = {"format": standalone.FORMAT, "engine": engine, "encoder": names[0], "step": names[1]}
        _write(made / "captioner.json", settings | _settings(model, graphs))
        _write(made / "transform.json", _transform(model))
        _write(made / "vocabulary.json", table)
        shutil.copyfile(standalone.__file__, made / "caption.py")
        (made / "README.md").write_text(card, "utf-8")


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _check(model: LoadedCaptioner, reranking: bool) -> None:
    """What the folder cannot do.

    Raises:
        UserError: the model does it.
    """
    way_out = "leave out --format for an export that this project reads"
    if isinstance(model.encoder, PictureEncoder):
        raise UserError(
            f"the encoder {model.module.inference['encoder']['name']} reads pictures of any size, and a graph one "
            f"size: {way_out}"
        )
    if model.module.control is not None:
        raise UserError(f"a classifier guides the captions of this run (control), which graphs do not know: {way_out}")
    if model.settings.mbr_reranking and reranking:
        raise UserError(
            f"this run ranks the captions of its beam search anew (mbr_reranking), which graphs do not: {way_out}, or "
            "give --no-reranking for the plain beam search"
        )


def _settings(model: LoadedCaptioner, graphs: Graphs) -> dict[str, Any]:
    """What the decoding loop needs to know."""
    settings, captioner = model.settings, model.module.captioner
    decoding = ("beams", "max_tokens", "length_penalty", "no_repeat_ngram_size", "early_stopping", "guidance")
    return {
        "memory": graphs.memory,
        "state": graphs.state,
        "labels": list(model.module.conditions_known()) if graphs.conditioned else [],
        **{name: getattr(captioner, f"{name}_id") for name in ("bos", "eos", "pad", "unk")},
        **{name: getattr(settings, name) for name in decoding},
    }


def _transform(model: LoadedCaptioner) -> dict[str, Any]:
    """How a picture is prepared, with the numbers behind the name of the normalisation."""
    spec, (mean, std) = model.transform.spec(), model.transform.statistics
    del spec["normalization"]
    return {**spec, "min_side": model.transform.min_side, "mean": list(mean), "std": list(std)}
