"""Images with their generated captions, in the loggers and as a figure in the run folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from callbacks.evaluation import EvaluationCallback, Stage, data_of, step_of, writes_files
from callbacks.pace import SHARE, Pace
from core.batch import Batch
from core.spread import spread
from lightning_modules.captioning import CaptioningModule
from lightning_modules.parts.sharding import shards_weights
from metrics.caption_metrics import CaptionMetrics
from reporting.attention import attention_strip, batch_maps
from reporting.dashboards import Cell, has_dashboard, log_captioned_images, log_rows
from reporting.pictures import ImageArray, Pixels, as_bytes, save_figure
from reporting.sheets import caption_sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An image of an evaluation.

    Attributes:
        image_id: its id.
        image: `(H, W, 3)`, 0 to 1.
        caption: generated.
        references: of the data set.
        attention: the image at each word, bright where the captioner attends; None: it does not, or nobody looks.
    """

    image_id: str
    image: ImageArray
    caption: str
    references: Sequence[str]
    attention: Pixels | None = None


class CaptionSamples(EvaluationCallback):
    """Shows some images of every evaluation, spread evenly over it, with the generated caption and references.

    Writes ``samples.png`` into the trainer's root folder. W&B and TensorBoard get the images with their captions, and a
    table with all references, the CIDEr-D of each image and, of captioners that attend, the attention at each word.

    In training it works at the first and the last validation, and in between as `callbacks.pace` allows.

    Args:
        count: images shown.
    """

    def __init__(self, *, count: int = 8) -> None:
        self.count = count
        self.pace = Pace(SHARE)
        self.samples: list[Sample] = []
        """Of the evaluation that is running, or has just ended."""

    def start(self) -> None:
        """Empties the collection."""
        self.samples = []

    def take(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, *, place: int, batches: float
    ) -> None:
        """Takes this batch's share of the images, and what earlier batches, not all captioned, had too few of."""
        if not (isinstance(outputs, dict) and "captions" in outputs):
            return
        known = set(batch["image_id"])
        # a text autoencoder writes captions of captions, whose ids are of no image
        captioned = [pair for pair in zip(outputs["image_id"], outputs["captions"], strict=True) if pair[0] in known]
        missing = math.ceil(self.count * min(1.0, (place + 1) / batches)) - len(self.samples)
        chosen = spread(captioned, max(0, missing))
        if not chosen:
            return
        data = data_of(trainer)
        rows = [batch["image_id"].index(image_id) for image_id, _ in chosen]
        images = []
        for row, (image_id, _) in zip(rows, chosen, strict=True):
            # else the model saw stored features
            seen = batch["image"][row].detach().float().cpu() if "image" in batch else None
            tensor = data.transform(data.image(image_id)) if seen is None else seen
            images.append(data.transform.denormalize(tensor).clamp(0, 1).permute(1, 2, 0).numpy())
        strips: list[Pixels | None] = [None] * len(rows)
        attends = isinstance(module, CaptioningModule) and module.captioner.attends
        if attends and not trainer.sanity_checking and has_dashboard(trainer.loggers) and not shards_weights(trainer):
            assert isinstance(module, CaptioningModule)
            maps = batch_maps(module, batch, rows, [caption for _, caption in chosen], data.tokenizer)
            strips = [attention_strip(image, found) for image, (_, found) in zip(images, maps, strict=True)]
        for row, (image_id, caption), image, strip in zip(rows, chosen, images, strips, strict=True):
            references = batch["references"][row]
            sample = Sample(image_id=image_id, image=image, caption=caption, references=references, attention=strip)
            self.samples.append(sample)

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Shows them."""
        if not self.samples or not trainer.is_global_zero or trainer.sanity_checking:
            return
        images, captions = [item.image for item in self.samples], [item.caption for item in self.samples]
        step = step_of(trainer, module)
        log_captioned_images(trainer.loggers, stage, images, captions, step)
        if has_dashboard(trainer.loggers):
            columns, rows = sample_table(self.samples, _scores(module))
            log_rows(trainer.loggers, f"{stage}/caption_table", columns, rows, step)
        if writes_files(trainer):
            references = [next(iter(item.references), "") for item in self.samples]
            save_figure(caption_sheet(images, captions, references).png(), Path(trainer.default_root_dir), "samples")


def sample_table(samples: Sequence[Sample], scores: Mapping[str, float]) -> tuple[list[str], list[list[Cell]]]:
    """Headings and rows of a table of samples.

    Args:
        samples: that are shown.
        scores: image to its CIDEr-D.
    """
    attend = any(item.attention is not None for item in samples)
    columns = ["image_id", "image", "caption", "CIDEr-D", "references", *(["attention"] if attend else [])]
    rows: list[list[Cell]] = [
        [
            *(
                item.image_id,
                as_bytes(item.image),
                item.caption,
                scores.get(item.image_id),
                " / ".join(item.references),
            ),
            *([item.attention] if attend else []),
        ]
        for item in samples
    ]
    return columns, rows


def _scores(module: LightningModule) -> dict[str, float]:
    """CIDEr-D of the images that this process has captioned."""
    found = module.metrics.get("") if isinstance(module, CaptioningModule) else None
    if not isinstance(found, CaptionMetrics):
        return {}
    scores = found.image_scores()
    values = scores.table()["cider_d"].tolist()
    return dict(zip(map(str, scores.image_ids), values, strict=True))
