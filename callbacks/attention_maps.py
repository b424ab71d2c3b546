"""Where a captioner attends, word by word, as figures of every evaluation."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from callbacks.evaluation import EvaluationCallback, Stage, data_of, step_of, writes_files
from callbacks.pace import SHARE, Pace
from core.batch import Batch
from lightning_modules.parts.sharding import shards_weights
from reporting.attention import attending, batch_maps, draw_attention, seen_image
from reporting.dashboards import log_figure
from reporting.pictures import save_figure


class AttentionMaps(EvaluationCallback):
    """Draws the attention of some images of every evaluation at each word of the generated caption.

    Writes ``attention/NAME.png`` into the trainer's root folder and the figures to W&B and TensorBoard.

    In training it works at the first and the last validation, and in between as `callbacks.pace` allows. Where weights
    are divided among processes nothing is drawn: one of them alone cannot compute with them.

    Args:
        count: images drawn; 0: none.
    """

    def __init__(self, *, count: int = 4) -> None:
        self.count = count
        self.pace = Pace(SHARE)
        self._figures: dict[str, bytes] = {}

    def start(self) -> None:
        """Empties the collection."""
        self._figures = {}

    def take(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, *, place: int, batches: float
    ) -> None:
        """Draws the first images."""
        del place, batches
        missing = self.count - len(self._figures)
        if missing <= 0 or not trainer.is_global_zero or trainer.sanity_checking or shards_weights(trainer):
            return
        captioner = attending(module, "callbacks.attention_maps.AttentionMaps")
        data = data_of(trainer)
        ids, captions = outputs["image_id"][:missing], outputs["captions"][:missing]
        if not ids:
            return
        rows = [batch["image_id"].index(image_id) for image_id in ids]
        found = batch_maps(captioner, batch, rows, captions, data.tokenizer)
        for image_id, (words, maps) in zip(ids, found, strict=True):
            image = seen_image(data.transform, data.image(image_id))
            self._figures[image_id] = draw_attention(image, words, maps).png()

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Writes the figures."""
        step = step_of(trainer, module)
        for number, (image_id, drawn) in enumerate(self._figures.items()):
            log_figure(trainer.loggers, f"{stage}/attention_{number}", drawn, step, image_id)
            if writes_files(trainer):
                save_figure(drawn, Path(trainer.default_root_dir) / "attention", image_id)
        self._figures = {}
