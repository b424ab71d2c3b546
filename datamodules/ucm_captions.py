"""UCM-Captions and the data sets of the same format: RSICD and Sydney-Captions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from core.errors import DataError, UserError, command
from core.inputs import parse_json, read_text
from datamodules.base import CaptionDataModule
from datamodules.readers.caption_json import read_karpathy
from datamodules.readers.image_refs import ImageFile, ImageRef
from datamodules.readers.image_search import listed
from datamodules.readers.images import SKIP, find_image
from datamodules.readers.obtaining import Part
from datamodules.readers.records import SPLITS, Example, Problem, Split, say_dropped
from datamodules.readers.ucm_labels import LABEL_FILES, read_label_table
from datamodules.readers.ucm_names import ImageNames, image_folders, image_names, is_number
from datamodules.readers.ucm_parts import ANNOTATIONS, found_in, ucm_parts


class UCMCaptions(CaptionDataModule):
    """UCM-Captions (Qu et al. 2016), 2100 aerial images of UC Merced Land Use (Yang and Newsam 2010), 5 captions each.

    Also reads RSICD (Lu et al. 2018) and Sydney-Captions (Qu et al. 2016), which have the same ``dataset.json``.
    Expects that file (or ``dataset_NAME.json``) and a folder of images in the root; splits are the file's own. The
    names in it end in .tif; images may have any ending, lie in one folder under their number (``imgs/1.jpg``), or in
    folders of their classes as UC Merced publishes them (``Images/agricultural/agricultural00.tif``; number = 100 *
    class + image + 1, counting from 0, classes in alphabetical order).

    Classes are known for UCM by that formula, for others by ``index.csv`` (columns ``filename`` and ``class``), by
    RSICD's ``txtclasses_*`` folder, or by names like ``airport_12.jpg``. Multi-labels (Chaudhuri et al. 2018) are read
    where ``multilabels.txt`` is.

    The two forms of each sentence, ``raw`` and ``tokens``, disagree in one of 40 sentences of UCM and one of 20 of
    Sydney, because corrections were put sometimes in one and sometimes in the other. Nearly all went into ``tokens``
    (raw: "white foasm", "residentail area"), therefore it is the default. Capitals are left to the tokenizer. The full
    stop at the end, which only ``raw`` has everywhere, is taken off in both.

    Args:
        root: folder of the data set.
        captions_file: the annotations, in the root or relative to the working directory; None: the usual names.
        image_folder: folder of the images inside the root; None: the usual names.
        labels_file: multi-labels, see `datamodules.readers.ucm_labels`; None: the usual names, or no labels if there
            are none.
        text: which form of the sentences is read, ``tokens`` or ``raw``.
        repeated: one image in five has the same sentence twice or more: ``keep`` them, as published work does, or read
            them ``once`` in training; ``distinct``: in training every sentence is read once, with the first image that
            has it, and images without a sentence of their own are skipped (1 in 4 sentences is another one: for a text
            model). References of val and test keep them either way: scores depend on them. So does the vocabulary.
        captions_only: the captions are wanted without the images, for a text model; missing images are no error then.
    """

    has_caption_baselines = True

    def __init__(
        self,
        *,
        root: str = "data/ucm",
        captions_file: str | None = None,
        image_folder: str | None = None,
        labels_file: str | None = None,
        text: Literal["raw", "tokens"] = "tokens",
        repeated: Literal["keep", "once", "distinct"] = "keep",
        captions_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.captions_file, self.image_folder, self.labels_file = captions_file, image_folder, labels_file
        self.text: Literal["raw", "tokens"] = text
        self.repeated, self.captions_only = repeated, captions_only
        source = self.feature_source
        if captions_only and (source or self.on_bad_image == "skip"):
            stored = f"encoder={source.encoder}" if source.encoder is not None else f"regions={source.regions}"
            wrong = stored if source else "on_bad_image=skip"
            raise UserError(f"captions_only is true with {wrong}, which needs images: set one of the two off")
        self._records: list[Example] | None = None
        self._names: dict[str, ImageNames] = {}
        self._labels: tuple[tuple[str, ...], dict[str, tuple[float, ...]]] | None = None

    # what the files say

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the annotations, once for all splits, and finds the images of one.

        Raises:
            DataError: a file or image is missing, or a record is broken.
        """
        return self._load(split, self.repeated)

    def _load(self, split: Split, repeated: Literal["keep", "once", "distinct"]) -> list[Example]:
        records = [record for record in self._read() if record.split == split]
        if not records:
            raise DataError(f"{self._annotations()}: no image in split {split!r}; expected train, val or test in each")
        if split == "train" and repeated == "once":
            records = [replace(record, captions=_once(record.captions)) for record in records]
        if split == "train" and repeated == "distinct":
            kept = _distinct(records)
            say_dropped(str(self._annotations()), len(records) - len(kept), len(records), "no sentence of their own")
            records = kept
        return [replace(record, labels=self._labels_of(record), image=ref) for record, ref in self._located(records)]

    def vocabulary_captions(self) -> list[str]:
        """All training captions, however they are `repeated`, so that stages that read them differently share ids."""
        if self.repeated == "keep":
            return super().vocabulary_captions()
        return [text for example in self.usable(self._load("train", "keep")) for text in example.captions]

    def classes(self, split: Split) -> dict[str, str]:
        """Class of every image of a split, by image id as text; empty when the data set has no classes."""
        groups = {str(record.image_id): self._names[record.image_name].group for record in self._read()}
        found = {str(example.image_id): groups[str(example.image_id)] for example in self.examples(split)}
        return {image_id: group for image_id, group in found.items() if group is not None}

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the multi-labels, in the order of `Example.labels`; empty when there is no file of them."""
        return self._read_labels()[0]

    # files

    def _read(self) -> list[Example]:
        """All records, in the file's order; full stops taken off."""
        if self._records is None:
            path = self._annotations()
            document = parse_json(read_text(path), path)
            records = read_karpathy(path, _one_form(document, self.text, path), self.report)
            known = document.get("dataset")
            files = [record.image_name for record in records]
            formula = isinstance(known, str) and known.lower().startswith("ucm")
            # copies of the file may have lost the name: numbered images beside UCM's table of labels are UCM's
            formula = formula or (self._label_path() is not None and all(map(is_number, files)))
            self._names = image_names(self.root, files, formula)
            self._records = [
                replace(record, captions=tuple(_without_full_stop(text) for text in record.captions))
                for record in records
                if self._has_split(record)
            ]
        return self._records

    def _has_split(self, record: Example) -> bool:
        """Whether a record is in a split that is read; it would be missing from all of them without a word."""
        if record.split not in SPLITS:
            wanted = f"expected one of {', '.join(SPLITS)}; correct or remove the record"
            self.report(Problem("record", f"{record.origin}: split is {record.split or 'missing'}, {wanted}"))
        return record.split in SPLITS

    def _annotations(self) -> Path:
        if self.captions_file is not None:
            inside = self.root / self.captions_file
            return inside if inside.is_file() else Path(self.captions_file)
        found = [path for name in ANNOTATIONS for path in sorted(self.root.glob(name))]
        if len(found) == 1 or (found and found[0].name == ANNOTATIONS[0]):
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{self.root}: {names} may all be the annotations; set captions_file to one of them")
        raise DataError(
            f"{self.root / ANNOTATIONS[0]}: no such file; expected dataset.json (or dataset_NAME.json) of "
            "UCM-Captions, RSICD or Sydney-Captions and a folder of images in the root; where they can be had: "
            f"{command('data', 'prepare', 'ucm_captions', '--root', self.root)}"
        )

    def _folders(self) -> list[Path]:
        if self.image_folder is not None:
            folder = self.root / self.image_folder
            if not folder.is_dir():
                raise DataError(f"image_folder={self.image_folder}: no such folder in {self.root}")
            return [folder]
        return image_folders(self.root)

    def _located(self, records: Sequence[Example]) -> Iterator[tuple[Example, ImageRef | None]]:
        """The records with where the image of each is; those that are to be reported as missing are absent."""
        folders = self._folders()
        found = [self._image_file(record, folders) for record in records]
        missing = [record for record, path in zip(records, found, strict=True) if path is None]
        if missing and self.on_bad_image == "error" and not self.captions_only:
            self._report_missing(missing, len(records), folders)
        for record, path in zip(records, found, strict=True):
            if path is not None:
                yield record, ImageFile(str(path))
            elif self.captions_only:
                yield record, None
            elif self.on_bad_image == "skip":  # they are skipped, and counted, with the undecodable ones
                yield record, ImageFile(str(folders[0] / record.image_name))

    def _report_missing(self, missing: Sequence[Example], total: int, folders: Sequence[Path]) -> None:
        places = listed(folders)
        if len(missing) == total:
            message = (
                f"{self._annotations()}: none of its {total} images is in {places}; put them there, or set "
                "captions_only to true for a model of text alone"
            )
            self.report(Problem("missing", message))
            return
        for record in missing:
            way_out = f"put it there, remove the record, or {SKIP}"
            self.report(
                Problem("missing", f"{record.origin}: no image file {record.image_name} in {places}; {way_out}")
            )

    def image_files(self) -> list[Path | None]:
        """Where the annotated images are, None where one is missing; splits do not matter."""
        records, folders = self._read(), self._folders()
        return [self._image_file(record, folders) for record in records]

    def _image_file(self, record: Example, folders: Sequence[Path]) -> Path | None:
        names = (record.image_name, *self._names[record.image_name].files)
        return next((path for folder in folders for name in names if (path := find_image(folder, name))), None)

    @classmethod
    def parts(cls, root: Path) -> dict[str, Part]:
        """Captions, images and labels; of Sydney-Captions and RSICD, once their captions are there, no labels."""
        return ucm_parts(root, cls(root=str(root), captions_only=True) if found_in(root, *ANNOTATIONS) else None)

    @classmethod
    def from_table(cls, source: str, root: Path) -> list[str]:
        """Writes ``dataset.json`` and ``imgs`` from a table of the hub, such as those of RSICD."""
        from datamodules.readers.table_export import write_dataset

        return write_dataset(source, root)

    @property
    def is_ucm(self) -> bool:
        """Whether the annotated images are UC Merced's."""
        self._read()
        return any(names.label is not None for names in self._names.values())

    # labels

    def _labels_of(self, record: Example) -> tuple[float, ...]:
        names, labels = self._read_labels()
        if not names:
            return ()
        name = self._names[record.image_name].label or Path(record.image_name).stem
        if name not in labels:
            where = self._label_path()
            self.report(Problem("missing", f"{where}: no row for {name} ({record.origin}); add it, or remove the file"))
        return labels.get(name, (0.0,) * len(names))

    def _label_path(self) -> Path | None:
        if self.labels_file is not None:
            return self.root / self.labels_file
        return next((path for name in LABEL_FILES if (path := self.root / name).is_file()), None)

    def _read_labels(self) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
        if self._labels is None:
            path = self._label_path()
            self._labels = ((), {}) if path is None else read_label_table(path)
        return self._labels


def _one_form(document: Any, text: Literal["raw", "tokens"], path: Path) -> Any:
    """The document with only the wanted form of each sentence; sentences that lack it keep the other one."""
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise DataError(f"{path}: expected a JSON object with a list 'images'; is it the right file?")
    other = "raw" if text == "tokens" else "tokens"

    def one(sentence: Any) -> Any:
        if not isinstance(sentence, dict) or not sentence.get(text):
            return sentence
        return {key: value for key, value in sentence.items() if key != other}

    def all_of(image: Any) -> Any:
        if not isinstance(image, dict) or not isinstance(image.get("sentences"), list):
            return image  # the reader says what is wrong with it
        return {**image, "sentences": [one(sentence) for sentence in image["sentences"]]}

    return {**document, "images": [all_of(image) for image in document["images"]]}


def _without_full_stop(text: str) -> str:
    return text.rstrip(" .") or text


def _once(captions: Sequence[str]) -> tuple[str, ...]:
    """The different captions, in order; capitals make no difference."""
    different: dict[str, str] = {}
    for caption in captions:
        different.setdefault(caption.lower(), caption)
    return tuple(different.values())


def _distinct(records: Sequence[Example]) -> list[Example]:
    """Every sentence once, in the first record that has it; records that have none left are gone."""
    known: set[str] = set()
    found: list[Example] = []
    for record in records:
        own = tuple(text for text in _once(record.captions) if text.lower() not in known)
        known.update(text.lower() for text in own)
        if own:
            found.append(replace(record, captions=own))
    return found
