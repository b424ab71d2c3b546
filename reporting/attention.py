"""Figures of where a captioner attends, word by word."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning import LightningModule
from numpy.typing import NDArray
from PIL import Image

from core.batch import Batch
from core.errors import UserError
from datamodules.loading.tokenization import CaptionTokenizer
from datamodules.readers.transforms import ImageTransform
from datamodules.scenes.pointing import normalised_entropy
from lightning_modules.captioning import CaptioningModule
from lightning_modules.serving import LoadedCaptioner
from reporting.pictures import ImageArray, save_figure
from reporting.sheets import Sheet, attention_sheet


def seen_image(transform: ImageTransform, image: Image.Image) -> ImageArray:
    """An image as the model sees it, cropped and scaled: `(H, W, 3)`, 0 to 1."""
    pixels: ImageArray = transform.denormalize(transform(image)).clamp(0, 1).permute(1, 2, 0).numpy()
    return pixels


def draw_attention(image: ImageArray, words: Sequence[str], maps: torch.Tensor) -> Sheet:
    """One sheet of the attention of a caption.

    Args:
        image: `(H, W, 3)`, 0 to 1.
        words: the caption.
        maps: one for each word, `(words, h, w)`.
    """
    entropies = normalised_entropy(maps.flatten(1)).tolist() if len(maps) else []
    return attention_sheet(image, words, list(maps.numpy()), " ".join(words) or "(empty)", entropies)


def attention_strip(image: ImageArray, maps: torch.Tensor, side: int = 96, per_row: int = 8) -> NDArray[np.uint8]:
    """The image once for each word, bright where the captioner attends: a small picture without text for tables.

    Args:
        image: `(H, W, 3)`, 0 to 1.
        maps: `(words, h, w)`.
        side: side of a tile, in pixels.
        per_row: tiles in a row.

    Returns:
        `(rows * side, columns * side, 3)`; the first tile is the image itself.
    """
    small = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).unsqueeze(0).float()
    base = torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear", antialias=True)[0]
    top = maps.flatten(1).amax(dim=1).clamp_min(3 / max(1, maps[0].numel() if len(maps) else 1)).view(-1, 1, 1)
    weights = torch.nn.functional.interpolate((maps / top).unsqueeze(1), size=(side, side), mode="bilinear")
    tiles = torch.cat([base.unsqueeze(0), base * (0.15 + 0.85 * weights)])
    columns = min(per_row, len(tiles))
    rows = -(-len(tiles) // columns)
    filled = torch.cat([tiles, tiles.new_ones(rows * columns - len(tiles), 3, side, side)])
    grid = filled.view(rows, columns, 3, side, side).permute(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
    pixels: NDArray[np.uint8] = (grid.clamp(0, 1) * 255).round().byte().numpy()
    return pixels


def batch_maps(
    module: CaptioningModule, batch: Batch, rows: Sequence[int], captions: Sequence[str], tokenizer: CaptionTokenizer
) -> list[tuple[list[str], torch.Tensor]]:
    """Attention of some images of a batch, see `CaptioningModule.caption_maps`; only these are encoded.

    Args:
        module: the captioner.
        batch: on the module's device.
        rows: images.
        captions: one for each of them.
        tokenizer: the run's.
    """
    chosen = batch.copy()
    places = list(rows)
    if "image" in batch:
        chosen["image"] = batch["image"][places]
    if "features" in batch:
        chosen["features"] = batch["features"][places]
    if "feature_mask" in batch:
        chosen["feature_mask"] = batch["feature_mask"][places]
    chosen["image_id"] = [batch["image_id"][row] for row in rows]
    with torch.no_grad():
        memory = module.captioner.encode(chosen)
    return module.caption_maps(memory, captions, tokenizer)


def attending(module: LightningModule, asked: str) -> CaptioningModule:
    """The module, if it has attention to draw.

    Args:
        module: module of a captioner.
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
        names: names of the figures, without suffix.

    Raises:
        UserError: the captioner has no attention, or the folder cannot be written to.
    """
    attending(captioner.module, "--attention")
    found = captioner.attention(images, captions)
    for image, name, (words, maps) in zip(images, names, found, strict=True):
        save_figure(draw_attention(seen_image(captioner.transform, image), words, maps).png(), folder, name)
