"""``caption``: writes captions for any pictures with a trained captioner."""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from commands.arguments import Parser, dashed
from core.errors import DataError, UserError


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py caption", __doc__)
    parser.add_argument("--ckpt", required=True, help="run folder or checkpoint")
    parser.add_argument("images", nargs="+", help="pictures and folders of pictures")
    parser.add_argument("--beams", type=int, help="width of the beam search; 1 is greedy")
    parser.add_argument("--num-captions", type=int, default=1, help="captions for each picture")
    parser.add_argument("--sample", action="store_true", help="draw captions instead of searching for the best")
    parser.add_argument("--top-p", type=float, default=0.9, help="with --sample: share of the probability drawn from")
    parser.add_argument("--temperature", type=float, default=1.0, help="with --sample: above 1 is wilder")
    parser.add_argument("--seed", type=int, default=0, help="with --sample: seed of the draw")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time")
    parser.add_argument(
        "--attention", type=Path, metavar="FOLDER", help="draw where the model looked for each word, a figure a picture"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per picture and line")
    parser.add_argument("--skip-bad", action="store_true", help="name pictures that do not decode and go on")
    return parser


def main(args: Sequence[str]) -> int:
    """Prints a caption per picture; the exit code is 1 when a picture had to be left out.

    Raises:
        UserError: no such checkpoint, picture or device.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    paths = list(find_pictures(options.images))
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: expected at least 1")

    import torch
    from PIL import Image

    from datamodules.readers.images import WAYS_OUT, open_image
    from lightning_modules import load_captioner

    captioner = load_captioner(options.ckpt, choose_device(options.device))
    if options.attention is not None:
        from callbacks.attention_maps import check_attends

        check_attends(captioner.module, "--attention")  # fails now, not behind the first pictures
    beams = options.beams
    if beams is None:
        beams = 1 if options.sample else max(captioner.settings.beams, options.num_captions)
    settings = replace(
        captioner.settings,
        beams=beams,
        num_captions=options.num_captions,
        sample=options.sample,
        top_p=options.top_p if options.sample else 1.0,
        temperature=options.temperature if options.sample else 1.0,
    )
    generator = torch.Generator(captioner.device).manual_seed(options.seed)
    bad = 0
    names_used: set[str] = set()
    for start in range(0, len(paths), options.batch_size):
        readable: list[tuple[Path, Image.Image]] = []
        for path in paths[start : start + options.batch_size]:
            try:
                readable.append((path, open_image(path, min_side=captioner.transform.min_side)))
            except DataError as error:
                message = str(error).removesuffix(f"; {WAYS_OUT}")
                if not options.skip_bad:
                    raise UserError(f"{message}; --skip-bad goes on without it") from error
                bad += 1
                print(f"left out: {message}", file=sys.stderr)
        written = captioner.caption([picture for _, picture in readable], settings, generator)
        for (path, _), captions in zip(readable, written, strict=True):
            show(path, captions, options.json)
        if options.attention is not None and readable:
            from callbacks.attention_maps import write_attention

            names = [figure_name(path, names_used) for path, _ in readable]
            texts = [captions[0][0] if captions else "" for captions in written]
            write_attention(captioner, [picture for _, picture in readable], texts, options.attention, names)
    return 1 if bad else 0


def show(path: Path, captions: list[tuple[str, float]], as_json: bool) -> None:
    """Prints the captions of one picture."""
    if as_json:
        rows = [{"caption": text, "log_prob": round(log_prob, 4)} for text, log_prob in captions]
        print(json.dumps({"image": str(path), "captions": rows}, ensure_ascii=False), flush=True)
    elif len(captions) == 1:
        print(f"{path}: {captions[0][0]}", flush=True)
    else:
        print(f"{path}:")
        for text, log_prob in captions:
            print(f"  {log_prob:8.2f}  {text}", flush=True)


def figure_name(path: Path, used: set[str]) -> str:
    """Name of a picture's figure: its file's, with a number when another picture has it already; notes it as used."""
    name = next(name for n in itertools.count(1) if (name := f"{path.stem}_{n}" if n > 1 else path.stem) not in used)
    used.add(name)
    return name


def find_pictures(names: Sequence[str]) -> Iterator[Path]:
    """Goes through files and folders; folders give their pictures, sorted, sub-folders included.

    Raises:
        UserError: a name does not exist, or a folder has no picture.
    """
    from datamodules.readers.images import IMAGE_SUFFIXES

    for name in names:
        path = Path(name)
        if path.is_dir():
            # macOS leaves "._picture.jpg" beside every picture of an archive
            files = (p for p in path.rglob("[!.]*") if p.is_file())
            found = sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise UserError(f"folder '{name}' has no picture ({', '.join(IMAGE_SUFFIXES)})")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise UserError(f"there is no picture or folder '{name}'")


def choose_device(name: str) -> str:
    """Turns "auto" into the best device there is and checks the others.

    Raises:
        UserError: torch does not know the device, or this machine has none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name} cannot be used here: {str(error).splitlines()[0]}; use cpu or auto"
        ) from error
    return name
