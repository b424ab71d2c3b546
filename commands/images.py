"""What `caption` and `label` have in common: their images, the device, images that cannot be decoded."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import Parser, positive
from core.errors import DataError, UserError
from core.text import say

if TYPE_CHECKING:
    from PIL import Image


def add_model_options(parser: Parser, nargs: str, images_help: str) -> None:
    """Adds the options that every command with a trained model and images has.

    Args:
        parser: parser of the command.
        nargs: how many images there may be, "+" or "*".
        images_help: help of the images.
    """
    add = parser.add_argument
    add("--ckpt", required=True, help="run folder or checkpoint")
    add("images", nargs=nargs, help=images_help)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--batch-size", type=positive, default=16, help="images per batch")
    add("--skip-bad", action="store_true", help="skip images that cannot be decoded, and list them")


def find_images(names: Sequence[str]) -> list[Path]:
    """Files, and the images in folders, sorted, sub-folders included.

    Raises:
        UserError: a name does not exist, or a folder has no image.
    """
    return [path for name in names for path in _images_of(name)]


def _images_of(name: str) -> Iterator[Path]:
    from datamodules.readers.images import IMAGE_SUFFIXES

    path = Path(name)
    if path.is_dir():
        # macOS leaves "._image.jpg" beside every image of an archive
        files = (p for p in path.rglob("[!.]*") if p.is_file())
        found = sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise UserError(f"folder '{name}' has no image ({', '.join(IMAGE_SUFFIXES)})")
        yield from found
    elif path.is_file():
        yield path
    else:
        raise UserError(f"there is no image or folder '{name}'")


def open_or_skip(path: Path, min_side: int, skip_bad: bool) -> "Image.Image | None":
    """Opens an image; one that cannot be decoded is reported on standard error and skipped.

    Args:
        path: path of the image.
        min_side: see `datamodules.readers.images.open_image`.
        skip_bad: False: it is an error.

    Returns:
        The image; None when it was skipped.

    Raises:
        UserError: it cannot be decoded and may not be skipped.
    """
    from datamodules.readers.images import WAYS_OUT, open_image

    try:
        return open_image(path, min_side=min_side)
    except DataError as error:
        message = str(error).removesuffix(f"; {WAYS_OUT}")
        if not skip_bad:
            raise UserError(f"{message}; --skip-bad skips it") from error
        say(f"skipped: {message}", err=True)
        return None


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
