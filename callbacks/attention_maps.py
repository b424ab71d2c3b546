"""Where an attention looked, word by word, as figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from core.batch import Batch
from core.errors import UserError
from datamodules.base import CaptionDataModule
from datamodules.readers.images import ImageTransform
from datamodules.scenes.pointing import normalised_entropy
from lightning_modules.captioning import CaptioningModule
from lightning_modules.serving import LoadedCaptioner
from networks.layers.sequences import select_rows
from reporting.figures import Picture, attention_sheet


class AttentionMaps(Callback):
    """Draws the attention of some pictures of every evaluation while it writes its own captions.

    Writes ``attention/NAME.png`` into the trainer's root folder and the figures to W&B and TensorBoard.

    Args:
        count: pictures drawn; none when 0.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = count
        self._figures: dict[str, Figure] = {}

    def _take(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch) -> None:
        missing = self.count - len(self._figures)
        if missing <= 0 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        check_attends(module, "callbacks.attention_maps.AttentionMaps")
        assert isinstance(module, CaptioningModule)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        assert isinstance(datamodule, CaptionDataModule)
        ids, captions = outputs["image_id"][:missing], outputs["captions"][:missing]
        if not ids:
            return
        rows = torch.tensor([batch["image_id"].index(image_id) for image_id in ids], device=module.device)
        memory = select_rows(module.captioner.encode(batch), rows)
        drawn = zip(ids, module.caption_maps(memory, captions, datamodule.tokenizer), strict=True)
        for image_id, (words, maps) in drawn:
            picture = seen_picture(datamodule.transform, datamodule.image(image_id))
            self._figures[image_id] = draw_attention(picture, words, maps)

    def _show(self, trainer: Trainer, key: str) -> None:
        for number, (image_id, figure) in enumerate(self._figures.items()):
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image(f"{key}/attention_{number}", [figure], trainer.global_step, caption=[image_id])
                elif isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(f"{key}/attention_{number}", figure, trainer.global_step)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
                save_figure(figure, Path(trainer.default_root_dir) / "attention", image_id)
        self._figures = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the collection."""
        self._figures = {}

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the collection."""
        self._figures = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first pictures."""
        self._take(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first pictures."""
        self._take(trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the figures."""
        self._show(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the figures."""
        self._show(trainer, "test")


def seen_picture(transform: ImageTransform, picture: Image.Image) -> Picture:
    """A picture as the model sees it, cut and scaled: `(H, W, 3)`, 0 to 1."""
    pixels: Picture = transform.denormalize(transform(picture)).clamp(0, 1).permute(1, 2, 0).numpy()
    return pixels


def draw_attention(picture: Picture, words: Sequence[str], maps: torch.Tensor) -> Figure:
    """One figure of a caption's attention.

    Args:
        picture: `(H, W, 3)`, 0 to 1.
        words: the caption.
        maps: one for each word, `(words, h, w)`.
    """
    entropies = normalised_entropy(maps.flatten(1)).tolist() if len(maps) else []
    return attention_sheet(picture, words, list(maps.numpy()), " ".join(words) or "(empty)", entropies)


def check_attends(module: LightningModule, asked: str) -> None:
    """Makes sure that there is an attention to draw.

    Args:
        module: the captioner's.
        asked: what the user asked for.

    Raises:
        UserError: there is none.
    """
    if not isinstance(module, CaptioningModule) or not module.captioner.attends:
        raise UserError(
            f"{asked}: this model ({getattr(module, 'method', type(module).__name__)}) has no attention to draw; give "
            "a run of attention_rnn, or one of code_captioning with model.init_args.attention"
        )


def write_attention(
    captioner: LoadedCaptioner,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    folder: Path,
    names: Sequence[str],
) -> None:
    """Writes a figure of the attention for each picture.

    Args:
        captioner: the trained captioner.
        pictures: RGB.
        captions: what it wrote of each.
        folder: where the figures go.
        names: of the figures, without ending.

    Raises:
        UserError: the captioner has no attention, or the folder cannot be written to.
    """
    module = captioner.module
    check_attends(module, "--attention")
    with torch.inference_mode():
        memory = module.captioner.encode(captioner.image_batch(pictures))
        found = module.caption_maps(memory, captions, captioner.tokenizer)
    for picture, name, (words, maps) in zip(pictures, names, found, strict=True):
        save_figure(draw_attention(seen_picture(captioner.transform, picture), words, maps), folder, name)


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Writes a figure as ``NAME.png``; characters that no file name may hold become underscores.

    Raises:
        UserError: the folder cannot be written to.
    """
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    path = folder / f"{safe}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise UserError(f"figure {path} cannot be written ({error.strerror}); give another folder") from error
    return path
