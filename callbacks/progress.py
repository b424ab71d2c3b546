"""The progress bar of every run."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's bar with short names, removed before a report is printed."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Metrics behind the bar, which has to fit into 80 columns: no run number, no "train/"."""
        metrics = super().get_metrics(trainer, pl_module)
        return {key.removeprefix("train/"): value for key, value in metrics.items() if key != "v_num"}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Releases the terminal: an active bar would be drawn again below the report."""
        super().on_test_end(trainer, pl_module)
        self._stop_progress()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for a validation by itself."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "validate":
            self._stop_progress()
