"""Options of validation, testing and prediction."""

from typing import Any

from lightning import LightningDataModule

from core.errors import UserError
from datamodules.readers.records import Split


class EvaluationOptions(LightningDataModule):
    """What is read in evaluation, and how many images at a time.

    Args:
        evaluate_on: split that validate, test and predict read instead of their own.
        eval_batch_size: images per batch and process in validation, testing and prediction; None: `batch_size`.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(self, *, evaluate_on: Split | None = None, eval_batch_size: int | None = None) -> None:
        super().__init__()
        if eval_batch_size is not None and eval_batch_size < 1:
            raise UserError(f"eval_batch_size is {eval_batch_size}: expected at least 1")
        self.evaluate_on, self.eval_batch_size = evaluate_on, eval_batch_size

    def evaluation_split(self, split: Split) -> Split:
        """The split that is read where `split` is asked for: `evaluate_on` replaces val and test."""
        return self.evaluate_on or split

    def evaluation_options(self) -> dict[str, Any]:
        """These options, for another data module that reads the same images."""
        return {"eval_batch_size": self.eval_batch_size}
