"""UCM-Captions and the data sets of the same format: RSICD and Sydney-Captions."""

import copy
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.errors import DataError, UserError
from datamodules.audit.bounds import Bounds
from datamodules.base import CaptionDataModule, Split
from datamodules.loading.dataset import Example
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer
from datamodules.readers.caption_json import read_karpathy
from datamodules.readers.images import Normalization, find_image
from datamodules.readers.records import Problem, Record, Report, fail, parse_json, read_text
from datamodules.readers.ucm_labels import LABEL_FILES, read_label_table

UCM_CLASSES = (
    "agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential", "forest",
    "freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark", "overpass", "parkinglot",
    "river", "runway", "sparseresidential", "storagetanks", "tenniscourt",
)  # fmt: skip
"""UC Merced's classes, 100 images each, in the order of UCM-Captions' numbers."""

_ANNOTATIONS = ("dataset.json", "dataset_*.json")
_IMAGE_FOLDERS = ("imgs", "images", "Images", "*_[Ii]mages", "*_imgs", "UCMerced_LandUse/Images", "")
_CLASS_LISTS = "txtclasses*"


def ucm_name(number: int) -> str | None:
    """UC Merced's name of UCM-Captions' image `number`: the class and the image's number in it.

    >>> ucm_name(1), ucm_name(2100), ucm_name(2101)
    ('agricultural00', 'tenniscourt99', None)
    """
    index, image = divmod(number - 1, 100)
    return f"{UCM_CLASSES[index]}{image:02d}" if 0 <= index < len(UCM_CLASSES) else None


def parts_of(root: Path) -> dict[str, tuple[str, str]]:
    """Which parts of UCM-Captions lie in a folder.

    Returns:
        Part to what was found of it, empty if nothing, and where it comes from.
    """

    def found(*patterns: str) -> str:
        paths = [path for pattern in patterns for path in sorted(root.glob(pattern))] if root.is_dir() else []
        return str(paths[0]) if paths else ""

    endings = [f"{sub}*.{end}" for sub in ("", "*/") for end in ("tif", "png", "jpg", "TIF", "PNG", "JPG")]
    captions, share = found(*_ANNOTATIONS), ""
    if captions:
        files = UCMCaptions(str(root), captions_only=True).picture_files()
        there = [path for path in files if path]
        pictures = str(there[0]) if there and len(there) == len(files) else ""
        share = f"{len(there)} of {len(files)} are there. "
    else:
        pictures = found(*(f"{name}/{ending}" for name in _IMAGE_FOLDERS if name for ending in endings), *endings)
    return {
        "captions": (
            captions,
            f"Put dataset.json into {root}: it is in the archive UCM_captions of the authors of RSICD (Lu et al. "
            "2018), who also offer Sydney-Captions and RSICD in the same form.",
        ),
        "images": (
            pictures,
            f"{share}Put UCMerced_LandUse/Images (21 folders of 100 .tif) or imgs (1.tif to 2100.tif) into {root}: UC "
            "Merced's computer vision laboratory offers UCMerced_LandUse.zip, 317 MB, public domain.",
        ),
        "multi-labels": (
            found(*LABEL_FILES),
            f"Put LandUse_Multilabeled.txt into {root}: TU Berlin's remote sensing group offers it in multilabels.zip "
            "(Chaudhuri et al. 2018). Only labels need it.",
        ),
    }


@dataclass(frozen=True, slots=True)
class _Names:
    """What else is known of an annotated file name.

    Attributes:
        files: other names that the picture may have, relative to the image folder or the root.
        label: its name in the file of multi-labels.
        group: its class.
    """

    files: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None


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
    (raw: "white foasm", "residentail area"), therefore it is the default. Capitals are left to the tokeniser. The full
    stop at the end, which only ``raw`` has everywhere, is taken off in both.

    Args:
        root: folder of the data set.
        captions_file: the annotations, inside the root or from where you are; None: the usual names.
        image_folder: folder of the images inside the root; None: the usual names.
        labels_file: multi-labels, see `datamodules.readers.ucm_labels`; None: the usual names, or no labels if there
            are none.
        text: which form of the sentences is read, ``tokens`` or ``raw``.
        repeated: one image in five has the same sentence twice or more: ``keep`` them, as published work does, or read
            them ``once`` in training; ``distinct``: in training every sentence is read once, with the first image that
            has it, and images without a sentence of their own are left out (1 in 4 sentences is another one: for a text
            model). References of val and test keep them either way: scores depend on them. So does the vocabulary.
        captions_only: the captions are wanted without the images, for a text model; missing images are no error then.
        tokenizer: see `CaptionDataModule`, as all that follow.
        min_count: words seen less often are unknown.
        max_tokens: longest caption in tokens.
        batch_size: images per batch.
        captions_per_image: captions of each training image that come along; None = all.
        num_workers: loader processes.
        image_size: pixels; some images are a few pixels smaller or larger than 256 x 256.
        normalization: colour scale.
        augment: random crops in training.
        on_bad_image: "error" or "skip".
        evaluate_on: split that validate, test and predict read.
        encoder: frozen image tower whose features take the place of the pictures.
        encoder_weights: its weights.
    """

    report: Report = staticmethod(fail)
    """What is done with defects of the annotations; a checker replaces it."""

    def __init__(
        self,
        root: str = "data/ucm",
        captions_file: str | None = None,
        image_folder: str | None = None,
        labels_file: str | None = None,
        text: Literal["raw", "tokens"] = "tokens",
        repeated: Literal["keep", "once", "distinct"] = "keep",
        captions_only: bool = False,
        tokenizer: str = "word",
        min_count: int = 1,
        max_tokens: int = 36,
        batch_size: int = 8,
        captions_per_image: int | None = None,
        num_workers: int = 2,
        image_size: int = 224,
        normalization: Normalization = "imagenet",
        augment: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        evaluate_on: Split | None = None,
        encoder: str | None = None,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__(
            root=root,
            tokenizer=tokenizer,
            min_count=min_count,
            max_tokens=max_tokens,
            batch_size=batch_size,
            captions_per_image=captions_per_image,
            num_workers=num_workers,
            image_size=image_size,
            normalization=normalization,
            augment=augment,
            on_bad_image=on_bad_image,
            evaluate_on=evaluate_on,
            encoder=encoder,
            encoder_weights=encoder_weights,
        )
        self.captions_file, self.image_folder, self.labels_file = captions_file, image_folder, labels_file
        self.text: Literal["raw", "tokens"] = text
        self.repeated, self.captions_only = repeated, captions_only
        if captions_only and (encoder is not None or on_bad_image == "skip"):
            wrong = f"encoder={encoder}" if encoder is not None else "on_bad_image=skip"
            raise UserError(f"captions_only is true with {wrong}, which needs images: set one of the two off")
        self._records: list[Record] | None = None
        self._bounds = Bounds(self, self.classes)
        self._names: dict[str, _Names] = {}
        self._labels: tuple[tuple[str, ...], dict[str, tuple[float, ...]]] | None = None

    # what the files say

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the annotations, once for all splits, and finds the pictures of one.

        Raises:
            DataError: a file or picture is missing, or a record is broken.
        """
        records = [record for record in self._read() if record.split == split]
        if not records:
            raise DataError(f"{self._annotations()}: no image in split {split!r}; expected train, val or test in each")
        if split == "train" and self.repeated == "once":
            records = [replace(record, captions=_once(record.captions)) for record in records]
        if split == "train" and self.repeated == "distinct":
            records = _distinct(records)
        paths = self._pictures(records)
        return [
            Example(record.image_id, path, record.captions, self._labels_of(record), record.origin)
            for record, path in zip(records, paths, strict=True)
            if path is not None
        ]

    @property
    def tokenizer(self) -> WordTokenizer | BPETokenizer:
        """The caption tokeniser; a word vocabulary is that of all training captions, however they are `repeated`.

        So stages that read them differently have the same ids.
        """
        if self._tokenizer is None and self.repeated != "keep":
            whole = copy.copy(self)
            whole.repeated, whole._examples = "keep", {}
            self._tokenizer = whole.tokenizer
        return super().tokenizer

    def classes(self, split: Split) -> dict[str, str]:
        """Class of every image of a split, by image id as text; empty when the data set has no classes."""
        groups = {str(record.image_id): self._names[record.file].group for record in self._read()}
        found = {str(example.image_id): groups[str(example.image_id)] for example in self.examples(split)}
        return {image_id: group for image_id, group in found.items() if group is not None}

    def bounds(self, split: Split) -> dict[str, dict[str, float]]:
        """Floors and ceilings of a split, see `metrics.baselines.captions`; computed once."""
        return self._bounds.scores(split)

    def floor_captions(self, split: Split) -> dict[str, dict[str, str]]:
        """Captions of the floors; computed once."""
        return self._bounds.captions(split)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the multi-labels, in the order of `Example.labels`; empty when there is no file of them."""
        return self._read_labels()[0]

    @property
    def num_labels(self) -> int:
        """Number of multi-labels."""
        return len(self.label_names)

    def describe(self) -> dict[str, Any]:
        """Plain values that a checkpoint needs to serve a picture: also the label names, if there are any."""
        names = {"label_names": list(self.label_names)} if self.label_names else {}
        return {**super().describe(), **names}

    # files

    def _read(self) -> list[Record]:
        """All records, in the file's order; full stops taken off."""
        if self._records is None:
            path = self._annotations()
            document = parse_json(read_text(path), path)
            records = read_karpathy(path, _one_form(document, self.text, path), self.report)
            known = document.get("dataset")
            index = self._index()
            lists = self._class_lists()
            formula = isinstance(known, str) and known.lower().startswith("ucm")
            # copies of the file may have lost the name: numbered pictures beside UCM's table of labels are UCM's
            formula = formula or (self._label_path() is not None and all(_is_number(record.file) for record in records))
            self._names = {
                record.file: index.get(record.file) or _names(record.file, formula, lists) for record in records
            }
            self._records = [
                replace(record, captions=tuple(_without_full_stop(text) for text in record.captions))
                for record in records
            ]
        return self._records

    def _annotations(self) -> Path:
        if self.captions_file is not None:
            inside = self.root / self.captions_file
            return inside if inside.is_file() else Path(self.captions_file)
        found = [path for name in _ANNOTATIONS for path in sorted(self.root.glob(name))]
        if len(found) == 1 or (found and found[0].name == _ANNOTATIONS[0]):
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{self.root}: {names} may all be the annotations; set captions_file to one of them")
        raise DataError(
            f"{self.root / _ANNOTATIONS[0]}: no such file; expected dataset.json (or dataset_NAME.json) of "
            "UCM-Captions, RSICD or Sydney-Captions and a folder of images in the root"
        )

    def _folders(self) -> list[Path]:
        if self.image_folder is not None:
            folder = self.root / self.image_folder
            if not folder.is_dir():
                raise DataError(f"image_folder={self.image_folder}: no such folder in {self.root}")
            return [folder]
        found = [path for name in _IMAGE_FOLDERS if name for path in sorted(self.root.glob(name)) if path.is_dir()]
        return [*found, self.root]

    def _pictures(self, records: Sequence[Record]) -> list[str | None]:
        """Where the picture of each record is; None leaves the record out."""
        folders = self._folders()
        found = [self._picture(record, folders) for record in records]
        if self.captions_only:
            return [str(path) if path else "" for path in found]
        missing = [record for record, path in zip(records, found, strict=True) if path is None]
        if missing and self.on_bad_image == "error":
            self._report_missing(missing, len(records), folders)
        keep = self.on_bad_image == "skip"  # they are left out, and counted, with the undecodable ones
        return [
            str(path) if path else str(folders[0] / record.file) if keep else None
            for record, path in zip(records, found, strict=True)
        ]

    def _report_missing(self, missing: Sequence[Record], total: int, folders: Sequence[Path]) -> None:
        places = " or ".join(str(folder) for folder in folders)
        if len(missing) == total:
            message = (
                f"{self._annotations()}: none of its {total} images is in {places}; put them there, or set "
                "captions_only to true for a model of text alone"
            )
            self.report(Problem("missing", message))
            return
        for record in missing:
            way_out = "put it there, remove the record, or pass on_bad_image=skip"
            self.report(Problem("missing", f"{record.origin}: no image file {record.file} in {places}; {way_out}"))

    def picture_files(self) -> list[Path | None]:
        """Where the annotated pictures are, None where one is missing; splits do not matter."""
        records, folders = self._read(), self._folders()
        return [self._picture(record, folders) for record in records]

    def _picture(self, record: Record, folders: Sequence[Path]) -> Path | None:
        names = (record.file, *self._names[record.file].files)
        return next((path for folder in folders for name in names if (path := find_image(folder, name))), None)

    # classes and labels

    def _index(self) -> dict[str, _Names]:
        """What ``index.csv`` says, by annotated file name."""
        path = self.root / "index.csv"
        if not path.is_file():
            return {}
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
        if "filename" not in (rows.fieldnames or ()):
            raise DataError(f"{path}: no column 'filename' (columns: {', '.join(rows.fieldnames or ())})")
        return {
            row["filename"]: _Names(
                (row["image"],) if row.get("image") else (), row.get("name") or None, row.get("class") or None
            )
            for row in rows
        }

    def _class_lists(self) -> dict[str, str]:
        """Class by file name, from a folder with one list of file names a class."""
        lists = [path for folder in sorted(self.root.glob(_CLASS_LISTS)) for path in sorted(folder.glob("*.txt"))]
        return {name: path.stem for path in lists for name in read_text(path).split()}

    def _labels_of(self, record: Record) -> tuple[float, ...]:
        names, labels = self._read_labels()
        if not names:
            return ()
        name = self._names[record.file].label or Path(record.file).stem
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


def _is_number(file: str) -> bool:
    """Whether a picture is named by its number in UCM."""
    stem = Path(file).stem
    return stem.isdecimal() and ucm_name(int(stem)) is not None


def _names(file: str, formula: bool, lists: dict[str, str]) -> _Names:
    """What a file name says by itself."""
    stem = Path(file).stem
    if formula and stem.isdecimal() and (name := ucm_name(int(stem))):
        return _Names((f"{name[:-2]}/{name}.tif", f"{name}.tif"), name, name[:-2])
    named = re.fullmatch(r"([A-Za-z]+)_\d+", stem)
    group = lists.get(Path(file).name) or (named.group(1).lower() if named else None)
    return _Names((f"{group}/{file}",) if group else (), None, group)


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


def _distinct(records: Sequence[Record]) -> list[Record]:
    """Every sentence once, in the first record that has it; records that have none left are gone."""
    known: set[str] = set()
    found: list[Record] = []
    for record in records:
        own = tuple(text for text in _once(record.captions) if text.lower() not in known)
        known.update(text.lower() for text in own)
        if own:
            found.append(replace(record, captions=own))
    return found
