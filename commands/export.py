"""``export RUN``: a trained model as a folder or a repository of the hub, to be read again by every command.

It holds the weights as safetensors, configuration and tokenizer as JSON, and a model card written from the run:
figures beside baselines, command, commit, limits. Nothing in it is executed when it is read, and no path of this
machine is in it. With --format onnx or torch it holds a captioner as graphs, tables and one file of Python instead,
which need nothing of this project.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from commands.arguments import Parser, dashed
from core.errors import UserError, command
from core.text import say

LICENCES = r"[a-z0-9][a-z0-9.-]*"


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py export", description=__doc__.split("\n\n")[1] if __doc__ else None)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run folder or checkpoint")
    add("--to", choices=("folder", "hub"), default="folder", help="hub: upload to the Hugging Face hub, see --repo")
    add("--out", type=Path, metavar="FOLDER", help="folder to write; default: exports/NAME")
    add(
        "--format",
        choices=("safetensors", "onnx", "torch"),
        default="safetensors",
        help="onnx, torch: a captioner as graphs for onnxruntime or torch, to be used without this project",
    )
    add("--int8", action="store_true", help="with --format onnx: matrices as 8-bit integers")
    add("--no-reranking", action="store_true", help="with --format: plain beam search of a run with mbr_reranking")
    add("--repo", metavar="OWNER/NAME", help="repository of the hub; it is created where there is none")
    add("--public", action="store_true", help="a repository that is created can be read by everybody")
    add("--update", action="store_true", help="commit on top of what the repository holds")
    add("--name", help="name of the model in its card; default: that of the run")
    add(
        "--license", "--licence", default="other", metavar="ID", help="licence of the weights, such as mit or cc-by-4.0"
    )
    add("--trust", action="store_true", help="let the configurations of runs name classes of anybody")
    return parser


def main(args: Sequence[str]) -> int:
    """Exports a run.

    Raises:
        UserError: there is no checkpoint, the folder or the repository holds something already, or the hub does not
            take it.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    _check(options)
    from core.checkpoints import find_checkpoint

    file = find_checkpoint(options.run)
    run = next((folder for folder in (file.parent.parent, file.parent) if (folder / "config.yaml").is_file()), None)
    name = options.name or (run.absolute().name if run is not None else file.stem)
    write = partial(write_folder, file, run, name=name, licence=options.license, trust=options.trust)
    if options.to == "hub":
        from commands.exporting.upload import Repository

        repository = Repository(options.repo, update=options.update)  # what is refused is refused before the work
        with tempfile.TemporaryDirectory() as made:
            write(Path(made) / "export", place=options.repo)
            address = repository.upload(Path(made) / "export", public=options.public)
        say(f"uploaded: {address}", f"use it: {command('demo', '--ckpt', options.repo)}")
        return 0
    out = options.out or Path("exports") / name
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' holds something already: remove it, or give another --out")
    if options.format == "safetensors":
        write(out)
        say(f"written: {out}", f"use it: {command('demo', '--ckpt', out)}")
        return 0
    from commands.exporting.portable import write_portable

    write_portable(
        file,
        run,
        out,
        name=name,
        licence=options.license,
        engine=options.format,
        int8=options.int8,
        reranking=not options.no_reranking,
        trust=options.trust,
    )
    say(f"written: {out} ({_size(out)})", f"use it: python {out / 'caption.py'} PICTURE")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Whether the options go together.

    Raises:
        UserError: they do not.
    """
    if not re.fullmatch(LICENCES, options.license):
        raise UserError(f"--license {options.license!r}: expected an identifier such as mit or cc-by-4.0")
    if options.to == "hub" and options.repo is None:
        raise UserError("--to hub: expected --repo OWNER/NAME, too")
    if options.format != "onnx" and options.int8:
        raise UserError(f"--int8 does not go with --format {options.format}: add --format onnx")
    if options.format == "safetensors" and options.no_reranking:
        raise UserError("--no-reranking goes with --format onnx or torch")
    if options.to == "hub" and options.format != "safetensors":
        raise UserError(f"--format {options.format} does not go with --to hub: write a folder with --out FOLDER")
    others = ("out",) if options.to == "hub" else ("repo", "public", "update")
    if given := [f"--{name}" for name in others if getattr(options, name)]:
        raise UserError(f"{given[0]} does not go with --to {options.to}")


def write_folder(
    file: Path, run: Path | None, out: Path, *, name: str, licence: str, trust: bool = False, place: str = "FOLDER"
) -> None:
    """Writes the folder, whole or not at all.

    Args:
        file: checkpoint.
        run: folder of its run; None: there is none.
        out: folder to write.
        name: name of the model.
        licence: licence of the weights.
        trust: the configuration of the run may name anybody's classes.
        place: where the card says that the model is.
    """
    from safetensors.torch import save_file

    from commands.exporting.card import write_card
    from commands.exporting.folders import written_whole
    from core.checkpoints import read_checkpoint
    from core.exported import CONFIG, FORMAT, TOKENIZER, WEIGHTS, digest, without_folders

    checkpoint = read_checkpoint(file)
    card = write_card(run, checkpoint, name=name, licence=licence, trust=trust, place=place)
    inference = dict(checkpoint["inference"])
    tokenizer = inference.pop("tokenizer", None)
    # words and labels may look like paths
    inference |= without_folders({key: value for key, value in inference.items() if key != "label_names"})
    with written_whole(out) as made:
        # weights that share memory are written once each: safetensors has no views
        save_file({key: value.clone().contiguous() for key, value in checkpoint["state_dict"].items()}, made / WEIGHTS)
        if tokenizer is not None:
            (made / TOKENIZER).write_text(json.dumps(tokenizer, indent=1) + "\n", "utf-8")
        config = {
            "format": FORMAT,
            "sha256": digest(made / WEIGHTS),
            "inference": inference,
            "hyper_parameters": without_folders(checkpoint["hyper_parameters"]),
        }
        (made / CONFIG).write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        (made / "README.md").write_text(card, "utf-8")


def _size(folder: Path) -> str:
    """Megabytes of the files of a folder."""
    return f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB"
