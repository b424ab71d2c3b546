"""Your own images of which some have captions, and the others tags: captions that a captioner has written."""

from pathlib import Path
from typing import Any

from core.errors import DataError
from core.text import log_of
from datamodules.folder_captions import FolderCaptions
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.images import is_file
from datamodules.readers.records import Example
from datamodules.readers.tags import Certainty, file_name, read_tags, selected

_log = log_of(__name__)


class TaggedCaptions(FolderCaptions):
    """A folder of images with captions, and further training images with tags (``python cli.py tag``).

    A tagged image has its tag, or the captions that were drawn for it (``tag --samples``). Validation and test have the
    captions of the caption file alone. A tagged image that the caption file names, in whatever split, is left out.

    Args:
        tags: folder of ``tag --out``, or the table that ``merge`` made of it; None: none, which is `FolderCaptions`.
        tagged_folder: folder that was tagged, where the names in the tags start; None: the root and its image folder.
        min_confidence: least geometric mean of the probabilities of a tag's tokens, in [0, 1].
        min_agreement: least agreement with the other beams, in [0, 1].
        tagged_share: most of the tagged images that are kept, as a share in [0, 1]: the surest ones.
        most_repeats: images that may have the same tag, the surest ones; None: any number.
        rank_by: which number tells the surest, ``confidence`` or ``agreement``.
    """

    def __init__(
        self,
        *,
        tags: str | None = None,
        tagged_folder: str | None = None,
        min_confidence: float = 0.0,
        min_agreement: float = 0.0,
        tagged_share: float = 1.0,
        most_repeats: int | None = None,
        rank_by: Certainty = "confidence",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tags = tags
        self.tagged_folder = None if tagged_folder is None else Path(tagged_folder)
        self._selection: dict[str, Any] = {
            "min_confidence": min_confidence,
            "min_agreement": min_agreement,
            "share": tagged_share,
            "most_repeats": most_repeats,
            "rank_by": rank_by,
        }

    def _read_splits(self) -> dict[str, list[Example]]:
        """Adds the tags to the training images of the caption file."""
        splits = super()._read_splits()
        if self.tags is not None:
            known = {name for records in splits.values() for record in records for name in self._names_of(record)}
            tagged = self._tagged(known)
            splits["train"] = [*splits["train"], *tagged]
        return splits

    def _names_of(self, record: Example) -> tuple[str, ...]:
        """Under which names tags may have an image that has captions."""
        name = record.image_name
        folders = [self.tagged_folder] if self.tagged_folder is not None else self._folders()
        inside = [self.root / name, *(folder / name for folder in self._folders())]
        found = [path for path in inside if is_file(path)]
        return (name, *(str(path.relative_to(at)) for path in found for at in folders if path.is_relative_to(at)))

    def _tagged(self, known: set[str]) -> list[Example]:
        """The chosen tags of images without captions.

        Raises:
            DataError: none is left.
        """
        tags = read_tags(str(self.tags))
        chosen = selected(tags, **self._selection)
        examples = []
        for place in chosen:
            name = file_name(tags.images[place])
            if name not in known:
                captions = tags.captions_of(place)
                path = name if self.tagged_folder is None else str((self.tagged_folder / name).absolute())
                examples.append(
                    Example(
                        image_id=tags.images[place],
                        image=ImageFile(path),
                        captions=captions,
                        conditions=() if self.columns.label is None else (-1,) * len(captions),
                        origin=f"{self.tags} ({tags.images[place]})",
                    )
                )
        if not examples:
            raise DataError(
                f"{self.tags}: of {len(tags.images):,} tags {len(chosen):,} are chosen, and all of these images have "
                "captions; lower min_confidence and min_agreement, raise tagged_share, or tag other images"
            )
        _log.info(
            "tags: %d of %d images, %d different captions; %d have captions of their own, %d could not be read",
            len(examples), len(tags.images), len({text for example in examples for text in example.captions}),
            len(chosen) - len(examples), tags.skipped,
        )  # fmt: skip
        return examples
