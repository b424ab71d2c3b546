"""``export RUN``: a trained model as a folder that can be passed on, and read again by every command.

The folder holds the weights as safetensors, configuration and tokenizer as JSON, and a model card written from the run:
figures beside baselines, command, commit, limits. Nothing in it is executed when it is read, and no path of this
machine is in it.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
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
    add("--out", type=Path, metavar="FOLDER", help="folder to write; default: exports/NAME")
    add("--name", help="name of the model in its card; default: that of the run")
    add(
        "--license", "--licence", default="other", metavar="ID", help="licence of the weights, such as mit or cc-by-4.0"
    )
    add("--trust", action="store_true", help="let the configurations of runs name classes of anybody")
    return parser


def main(args: Sequence[str]) -> int:
    """Exports a run.

    Raises:
        UserError: there is no checkpoint, or the folder holds something already.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    if not re.fullmatch(LICENCES, options.license):
        raise UserError(f"--license {options.license!r}: expected an identifier such as mit or cc-by-4.0")
    from core.checkpoints import find_checkpoint

    file = find_checkpoint(options.run)
    run = next((folder for folder in (file.parent.parent, file.parent) if (folder / "config.yaml").is_file()), None)
    name = options.name or (run.absolute().name if run is not None else file.stem)
    out = options.out or Path("exports") / name
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' holds something already: remove it, or give another --out")
    write_folder(file, run, out, name=name, licence=options.license, trust=options.trust)
    say(f"written: {out}", f"use it: {command('demo', '--ckpt', out)}")
    return 0


def write_folder(file: Path, run: Path | None, out: Path, *, name: str, licence: str, trust: bool = False) -> None:
    """Writes the folder, whole or not at all.

    Args:
        file: checkpoint.
        run: folder of its run; None: there is none.
        out: folder to write.
        name: of the model.
        licence: of the weights.
        trust: the configuration of the run may name anybody's classes.
    """
    from safetensors.torch import save_file

    from commands.exporting.card import write_card
    from core.checkpoints import read_checkpoint
    from core.exported import CONFIG, FORMAT, TOKENIZER, WEIGHTS, digest, without_folders

    checkpoint = read_checkpoint(file)
    card = write_card(run, checkpoint, name=name, licence=licence, trust=trust)
    inference = dict(checkpoint["inference"])
    tokenizer = inference.pop("tokenizer", None)
    # words and labels may look like paths
    inference |= without_folders({key: value for key, value in inference.items() if key != "label_names"})
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".export-", dir=out.absolute().parent))
    try:
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
        made.chmod(0o755)
        made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
