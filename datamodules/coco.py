"""COCO captions: the 2017 folders with COCO's own split, or Karpathy's split over the 2014 or 2017 folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import DataError, command
from datamodules.base import CaptionDataModule
from datamodules.readers.caption_json import read_coco, read_karpathy
from datamodules.readers.download import Archive, missing_contents
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.image_search import find_images
from datamodules.readers.obtaining import Part, below, named
from datamodules.readers.records import Example, Split

_SERVER = "http://images.cocodataset.org"
# COCO publishes no checksums; these are what independent projects have found for the same files
ARCHIVES = {
    "annotations": Archive(
        path="annotations/annotations_trainval2017.zip",
        size=252_907_541,
        checksum="f4bbac642086de4f52a3fdda2de5fa2c",
        unpacked=1_100_000_000,
        contents=(("annotations/captions_train2017.json", 0), ("annotations/captions_val2017.json", 0)),
        server=_SERVER,
    ),
    "val": Archive(
        path="zips/val2017.zip",
        size=815_585_330,
        checksum="442b8da7639aecaf257c1dceb8ba8c80",
        unpacked=830_000_000,
        contents=(("val2017", 5000),),
        server=_SERVER,
    ),
    "train": Archive(
        path="zips/train2017.zip",
        size=19_336_861_798,
        checksum="cced6f7f71b7629ddf16f17bbcfab6b2",
        unpacked=19_700_000_000,
        contents=(("train2017", 118_287),),
        server=_SERVER,
    ),
    "karpathy": Archive(
        path="people/karpathy/deepimagesent/caption_datasets.zip",
        size=36_745_453,
        checksum="4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
        unpacked=145_000_000,
        contents=(("dataset_coco.json", 0),),
        server="https://cs.stanford.edu",
        place=named("dataset_coco.json"),
    ),
}
"""The parts of COCO 2017 that captioning needs, smallest first, and Karpathy's split."""
_PLACES = {
    "annotations": below("annotations", (".json",)),
    "val": below("val2017"),
    "train": below("train2017"),
    "karpathy": named("dataset_coco.json"),
}
_KARPATHY = "Only --data.init_args.karpathy=dataset_coco.json needs it"


class COCOCaptions(CaptionDataModule):
    """COCO captions (Chen et al. 2015, https://arxiv.org/abs/1504.00325).

    Expects ``train2017/``, ``val2017/`` (or both inside ``images/``) and ``annotations/captions_{train,val}2017.json``
    in the root; ``python cli.py data prepare coco --root ROOT`` makes them.

    COCO publishes no captions of its test images, therefore val *and test are both val2017*: choose nothing on the
    one that you report on the other. With `karpathy`, the file ``dataset_coco.json`` (Karpathy and Fei-Fei 2015,
    https://arxiv.org/abs/1412.2306) gives three separate splits (113 287 with restval, 5000, 5000 images); its
    images are read from ``train2014/`` and ``val2014/``, or, where the root has none of these, from the 2017
    folders, which hold the same images under shorter names.

    Args:
        root: folder of the data set.
        karpathy: path of Karpathy's JSON, by itself or inside the root; None: COCO's own split.
        restval: whether Karpathy's restval images are used for training, as published work does.
    """

    def __init__(
        self, *, root: str = "data/coco", karpathy: str | None = None, restval: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.karpathy = karpathy
        self.restval = restval
        self._karpathy_records: list[Example] | None = None

    @classmethod
    def parts(cls, root: Path) -> dict[str, Part]:
        """COCO 2017, and Karpathy's split file."""
        return {
            name: Part(
                found=", ".join(str(root / path) for path, _ in archive.contents)
                if not missing_contents(root, archive)
                else "",
                way=f"{f'{_KARPATHY}; p' if name == 'karpathy' else 'P'}ut {archive.name} into '{root}': "
                f"{archive.server}/{archive.path} ({archive.size / 1e9:.2f} GB).",
                archive=archive,
                place=_PLACES[name],
                is_needed=name != "karpathy",
            )
            for name, archive in ARCHIVES.items()
        }

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the annotations of one split.

        Raises:
            DataError: the root lacks a folder or file, or a record is broken.
        """
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; {self._expected()}")
        if self.karpathy is not None:
            records, folders = self._karpathy_split(self.karpathy, split), [self._images(""), self.root]
        else:
            name = "train2017" if split == "train" else "val2017"
            annotations = self.root / "annotations" / f"captions_{name}.json"
            if not annotations.is_file():
                raise DataError(f"{annotations}: no such file; {self._expected()}")
            folders = [self._images(name)]
            records = read_coco(annotations, report=self.report)
        return find_images(records, folders, self.report, keep_missing=self.on_bad_image == "skip")

    def _images(self, name: str) -> Path:
        """The folder of images, in the root or in ``root/images``."""
        places = [self.root / name, self.root / "images" / name] if name else [self.root / "images", self.root]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise DataError(f"{places[0]}: no such folder of images; {self._expected()}")
        return found

    def _karpathy_split(self, karpathy: str, split: Split) -> list[Example]:
        """Karpathy's records of a split, their files named as the folders that are there name them."""
        if self._karpathy_records is None:
            inside = self.root / karpathy
            path = inside if inside.is_file() else Path(karpathy)
            records = read_karpathy(path, report=self.report)
            bases = [self.root, self.root / "images"]
            # all or nothing: a root that has a 2014 folder is a 2014 root
            if not any((base / name).is_dir() for base in bases for name in ("train2014", "val2014")):
                years = {path.name for base in bases for path in base.glob("*2017") if path.is_dir()}
                records = [_named_as_2017(record, bases, years) for record in records]
            self._karpathy_records = records
        wanted = {"train", "restval"} if split == "train" and self.restval else {split}
        unsplit = next((record for record in self._karpathy_records if record.split is None), None)
        if unsplit is not None:
            raise DataError(f"{unsplit.origin}: has no split; expected train, restval, val or test in every record")
        return [record for record in self._karpathy_records if record.split in wanted]

    def _expected(self) -> str:
        """What the root must hold and how to get it."""
        tree = "train2017/, val2017/, annotations/captions_train2017.json, annotations/captions_val2017.json"
        return f"expected {tree} there; get them with: {command('data', 'prepare', 'coco', '--root', self.root)}"


def _named_as_2017(record: Example, bases: list[Path], folders: set[str]) -> Example:
    """The record with the name its image has in the 2017 folders; an image may be in either of them."""
    short = record.image_name.rsplit("_", 1)[-1]  # COCO_val2014_000000391895.jpg
    names = [f"{folder}/{short}" for folder in sorted(folders)]
    found = next((name for name in names for base in bases if (base / name).is_file()), f"train2017/{short}")
    return replace(record, image=ImageFile(found))
