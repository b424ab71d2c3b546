"""Where a captioner attends, word by word, as figures of every evaluation."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure

from callbacks.evaluation import EvaluationCallback, Stage, data_of, writes_files
from core.batch import Batch
from networks.layers.sequences import select_rows
from reporting.attention import attending, draw_attention, seen_image
from reporting.figures import save_figure
from reporting.loggers import log_figure


class AttentionMaps(EvaluationCallback):
    """Draws the attention of some images of every evaluation at each word of the generated caption.

    Writes ``attention/NAME.png`` into the trainer's root folder and the figures to W&B and TensorBoard.

    Args:
        count: images drawn; 0: none.
    """

    def __init__(self, *, count: int = 4) -> None:
        self.count = count
        self._figures: dict[str, Figure] = {}

    def start(self) -> None:
        """Empties the collection."""
        self._figures = {}

    def take(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, *, place: int, batches: float
    ) -> None:
        """Draws the first images."""
        del place, batches
        missing = self.count - len(self._figures)
        if missing <= 0 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        captioner = attending(module, "callbacks.attention_maps.AttentionMaps")
        data = data_of(trainer)
        ids, captions = outputs["image_id"][:missing], outputs["captions"][:missing]
        if not ids:
            return
        rows = torch.tensor([batch["image_id"].index(image_id) for image_id in ids], device=module.device)
        memory = select_rows(captioner.captioner.encode(batch), rows)
        drawn = zip(ids, captioner.caption_maps(memory, captions, data.tokenizer), strict=True)
        for image_id, (words, maps) in drawn:
            image = seen_image(data.transform, data.image(image_id))
            self._figures[image_id] = draw_attention(image, words, maps)

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Writes the figures."""
        for number, (image_id, figure) in enumerate(self._figures.items()):
            log_figure(trainer.loggers, f"{stage}/attention_{number}", figure, trainer.global_step, image_id)
            if writes_files(trainer):
                save_figure(figure, Path(trainer.default_root_dir) / "attention", image_id)
        self._figures = {}
