"""``caption``: captions images with a trained captioner."""

import argparse
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import Parser, comma_list, dashed
from commands.images import add_model_options, choose_device, find_images, open_or_skip
from commands.jobs.options import add_job_options, job_source
from core.collection import lasting
from core.errors import UserError
from core.text import say, say_json

if TYPE_CHECKING:
    from commands.jobs.tasks import CaptionTask
    from lightning_modules.captioning import CaptioningModule
    from lightning_modules.serving import LoadedCaptioner
    from networks.generation.settings import DecodingSettings


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py caption", description=__doc__)
    add_model_options(parser, "+", "images and folders of images")
    add = parser.add_argument
    add("--beams", type=int, help="beam width; 1: greedy search; default: the one of the run")
    add("--num-captions", type=int, default=1, help="captions per image")
    add("--sample", action="store_true", help="sample captions instead of searching for the most probable ones")
    add(
        "--top-p",
        type=float,
        default=0.9,
        help="with --sample: sample from the smallest set of tokens with this probability mass",
    )
    add("--temperature", type=float, default=1.0, help="with --sample: above 1 makes captions more diverse")
    add("--seed", type=int, default=0, help="with --sample: random seed")
    add("--emotion", help="what captions should say, such as an emotion: a label that the run was trained with")
    add(
        "--emotions",
        type=comma_list,
        metavar="NAME,NAME",
        help="one caption for each of these labels; all: for each that the run was trained with",
    )
    add(
        "--guidance",
        type=float,
        help="how strongly --emotion counts: 1 as trained, 0 not at all, 2 exaggerates; default: as in the run",
    )
    add("--control", metavar="RUN", help="prefix classifier that guides to --emotion; the captioner may know none")
    add("--control-strength", type=float, help="its weight at every word; 0: none; default: as in the captioner's run")
    add("--control-rerank", type=float, default=0.0, help="its weight in the choice among captions; default: 0")
    add("--attention", type=Path, metavar="FOLDER", help="write a figure of the attention at each word, one per image")
    add("--json", action="store_true", help="print one JSON object per image and line")
    add_job_options(parser)
    return parser


def main(args: Sequence[str]) -> int:
    """Prints captions of every image; the exit code is 1 when an image was skipped.

    Raises:
        UserError: no such checkpoint, image or device.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    check_control(options)
    source = job_source(options, without=("attention", "json"))
    if source is not None:
        from commands.jobs.engine import run_job

        return run_job(partial(make_task, options), source, options, args)
    paths = find_images(options.images)

    captioner, settings, emotions = _load(options)

    import torch

    if options.attention is not None:
        from reporting.attention import attending, write_attention

        attending(captioner.module, "--attention")  # fails now, not after the first images
    generator = torch.Generator(captioner.device).manual_seed(options.seed)
    skipped = 0
    names_used: set[str] = set()
    for start in range(0, len(paths), options.batch_size):
        batch = paths[start : start + options.batch_size]
        opened = [(path, open_or_skip(path, captioner.transform.min_side, options.skip_bad)) for path in batch]
        readable = [(path, image) for path, image in opened if image is not None]
        skipped += len(opened) - len(readable)
        images = [image for _, image in readable]
        found = {emotion: captioner.caption(images, settings, generator, emotion=emotion) for emotion in emotions}
        written = found[emotions[0]]
        for row, (path, _) in enumerate(readable):
            if options.emotions:
                show_emotions(path, {str(emotion): captions[row] for emotion, captions in found.items()}, options.json)
            else:
                show(path, written[row], options.json)
        if options.attention is not None and readable:
            names = [figure_name(path, names_used) for path, _ in readable]
            texts = [captions[0][0] if captions else "" for captions in written]
            write_attention(captioner, images, texts, folder=options.attention, names=names)
    return 1 if skipped else 0


def check_control(options: argparse.Namespace) -> None:
    """Makes sure that what is given of control has an effect.

    Raises:
        UserError: it has none.
    """
    if options.control is None and (options.control_strength is not None or options.control_rerank):
        raise UserError("--control-strength and --control-rerank need --control, the run of a prefix classifier")
    if options.control is not None and options.emotion is None and options.emotions is None:
        raise UserError("--control needs to know what captions should say: give --emotion or --emotions")


def make_task(options: argparse.Namespace) -> "CaptionTask":
    """What a job does with a batch, by the options of the command."""
    from commands.jobs.tasks import CaptionTask

    captioner, settings, emotions = _load(options)
    return CaptionTask(model=captioner, decoding=settings, emotions=emotions, seed=options.seed)


@lasting()
def _load(options: argparse.Namespace) -> "tuple[LoadedCaptioner, DecodingSettings, Sequence[str | None]]":
    """The captioner, how it searches, and what captions are asked for."""
    from lightning_modules import load_captioner

    captioner = load_captioner(options.ckpt, choose_device(options.device), options.control)
    settings = captioner.decoding(
        beams=options.beams,
        num_captions=options.num_captions,
        sample=options.sample,
        top_p=options.top_p,
        temperature=options.temperature,
        guidance=options.guidance,
        control_strength=options.control_strength,
        control_rerank=options.control_rerank,
    )
    return captioner, settings, chosen_emotions(captioner.module, options.emotion, options.emotions)


def show(path: Path, captions: list[tuple[str, float]], as_json: bool) -> None:
    """Prints the captions of one image.

    Args:
        path: path of the image.
        captions: each with its log-probability.
        as_json: one line of JSON.
    """
    if as_json:
        rows = [{"caption": text, "log_prob": round(log_prob, 4)} for text, log_prob in captions]
        say_json({"image": str(path), "captions": rows})
    elif len(captions) == 1:
        say(f"{path}: {captions[0][0]}")
    else:
        say(f"{path}:", *(f"  {log_prob:8.2f}  {text}" for text, log_prob in captions))


def chosen_emotions(
    module: "CaptioningModule", emotion: str | None, emotions: Sequence[str] | None
) -> Sequence[str | None]:
    """What captions are asked for, at least one; None: for nothing.

    Args:
        module: the captioner.
        emotion: the only one.
        emotions: several, or ``all``.

    Raises:
        UserError: the run knows no labels, or not these; or both are given.
    """
    if emotion is not None and emotions is not None:
        raise UserError("--emotion and --emotions are two ways to say the same: give one of them")
    if emotions is None and emotion is None:
        return [None]
    if emotions is not None and list(emotions) == ["all"]:
        return module.conditions_known()
    names = [emotion] if emotion is not None else list(dict.fromkeys(emotions or ()))
    if not names:
        raise UserError(f"--emotions names none: expected all, or some of {', '.join(module.conditions_known())}")
    for name in names:
        module.label_number(name)  # fails now, not after the first images
    return names


def show_emotions(path: Path, captions: dict[str, list[tuple[str, float]]], as_json: bool) -> None:
    """Prints the captions of one image for several emotions, see `show`."""
    if as_json:
        rows = [
            {"caption": text, "log_prob": round(log_prob, 4), "emotion": emotion}
            for emotion, found in captions.items()
            for text, log_prob in found
        ]
        say_json({"image": str(path), "captions": rows})
    else:
        width = max(map(len, captions))
        say(f"{path}:", *(f"  {emotion:{width}}  {text}" for emotion, found in captions.items() for text, _ in found))


def figure_name(path: Path, used: set[str]) -> str:
    """Name of an image's figure: that of its file, numbered when another image has it already; marks it as used."""
    name = next(name for n in itertools.count(1) if (name := f"{path.stem}_{n}" if n > 1 else path.stem) not in used)
    used.add(name)
    return name
