"""The part of a run's report about its data: sizes of the splits, and what they share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import DataError
from datamodules.audit.checks import shared_caption_notes, split_statistics
from datamodules.readers.records import SPLITS
from reporting.page import Section, Table

if TYPE_CHECKING:
    from datamodules.base import CaptionDataModule
    from datamodules.readers.records import Example

_COLUMNS = ("images", "captions", "fewest_captions", "most_captions", "mean_words", "most_words")


def data_section(data: "CaptionDataModule") -> Section:
    """Sizes of the splits and notes on what they share; images are not opened, `data check` does that.

    Args:
        data: that the run was evaluated on.
    """
    examples: dict[str, Sequence[Example]] = {}
    for split in SPLITS:
        try:
            examples[split] = data.examples(split)
        except DataError:  # such as data that has a test split alone
            continue
    rows: list[tuple[str | float, ...]] = [
        (split, *(split_statistics(own)[column] for column in _COLUMNS)) for split, own in examples.items() if own
    ]
    notes = shared_caption_notes(examples)
    if examples.get("val") and examples.get("val") == examples.get("test"):
        notes.insert(0, "val and test are the same images")
    columns = ("split", *(name.replace("_", " ") for name in _COLUMNS))
    return Section(
        title="Data",
        notes=[f"{note[0].upper()}{note[1:]}." for note in notes]
        or ["No caption of val or test also stands in train, word for word."],
        tables=[Table(title=type(data).__name__, columns=columns, rows=rows)],
    )
