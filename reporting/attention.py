"""Figures of where a captioner attends, word by word."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import LightningModule
from matplotlib.figure import Figure
from PIL import Image

from core.errors import UserError
from datamodules.readers.transforms import ImageTransform
from datamodules.scenes.pointing import normalised_entropy
from lightning_modules.captioning import CaptioningModule
from lightning_modules.serving import LoadedCaptioner
from reporting.figures import ImageArray, attention_sheet, save_figure


def seen_image(transform: ImageTransform, image: Image.Image) -> ImageArray:
    """An image as the model sees it, cropped and scaled: `(H, W, 3)`, 0 to 1."""
    pixels: ImageArray = transform.denormalize(transform(image)).clamp(0, 1).permute(1, 2, 0).numpy()
    return pixels


def draw_attention(image: ImageArray, words: Sequence[str], maps: torch.Tensor) -> Figure:
    """One figure of the attention of a caption.

    Args:
        image: `(H, W, 3)`, 0 to 1.
        words: the caption.
        maps: one for each word, `(words, h, w)`.
    """
    entropies = normalised_entropy(maps.flatten(1)).tolist() if len(maps) else []
    return attention_sheet(image, words, list(maps.numpy()), " ".join(words) or "(empty)", entropies)


def attending(module: LightningModule, asked: str) -> CaptioningModule:
    """The module, if it has attention to draw.

    Args:
        module: of a captioner.
        asked: what the user asked for, for the message.

    Raises:
        UserError: it has none.
    """
    if not isinstance(module, CaptioningModule) or not module.captioner.attends:
        raise UserError(
            f"{asked}: {type(module).__name__} has no attention to draw; give a run of a captioner with attention, "
            "such as AttentionRNN, or CodeCaptioning with model.init_args.attention"
        )
    return module


def write_attention(
    captioner: LoadedCaptioner,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    folder: Path,
    names: Sequence[str],
) -> None:
    """Writes a figure of the attention for each image.

    Args:
        captioner: the trained captioner.
        images: RGB.
        captions: what it generated for each.
        folder: where the figures go.
        names: of the figures, without suffix.

    Raises:
        UserError: the captioner has no attention, or the folder cannot be written to.
    """
    attending(captioner.module, "--attention")
    found = captioner.attention(images, captions)
    for image, name, (words, maps) in zip(images, names, found, strict=True):
        save_figure(draw_attention(seen_image(captioner.transform, image), words, maps), folder, name)
