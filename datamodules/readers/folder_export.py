"""Any data set of captioned images as a folder that `FolderCaptions` reads, with captions for some of it if wanted."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import DataError, UserError
from core.files import replacing, write_text
from core.inputs import open_regular, read_text
from datamodules.base import CaptionDataModule
from datamodules.readers.records import SPLITS, Example, Split
from datamodules.splitting.splits import seeded_order

CAPTIONED, UNCAPTIONED = "images", "uncaptioned"
"""Folders of the images with and without captions."""
CAPTIONS, ALL_CAPTIONS = "captions.jsonl", "all_captions.jsonl"
"""Caption files: what is left, and what was there before."""
_BLOCK = 1 << 20

Watch = Callable[[Iterable[Example], int], Iterable[Example]]
"""Passes examples on and shows how many of how many are done."""


def export_folder(
    data: CaptionDataModule, folder: Path, *, captioned: float = 1.0, draw_seed: int = 0, watch: Watch | None = None
) -> list[str]:
    """Writes images and captions of all splits; an interrupted export goes on, and the same call gives the same files.

    Files are copied as they are; images that are no files, such as scenes, become PNG.

    Args:
        data: what to write.
        folder: where to.
        captioned: share of the training images that keep their captions, in (0, 1]. The others go to a folder of
            their own, and their captions only into ``all_captions.jsonl``.
        draw_seed: seed of that draw, which depends on an image's id alone.
        watch: shows the progress.

    Returns:
        Lines that say what is where.

    Raises:
        UserError: the share is out of range, or the folder has other captions.
        DataError: an image cannot be read, or there are captions alone.
    """
    if not 0 < captioned <= 1:
        raise UserError(f"captioned is {captioned:g}: expected more than 0 and at most 1")
    splits = {split: data.examples(split) for split in SPLITS}
    keep = _keeping(splits["train"], captioned, draw_seed)
    names = _names([example for split in SPLITS for example in splits[split]])
    places = {split: [_place(split, example, names, keep) for example in splits[split]] for split in SPLITS}
    rows = {split: list(zip(splits[split], places[split], strict=True)) for split in SPLITS}
    kept = {split: [row for row in rows[split] if row[1].startswith(f"{CAPTIONED}/")] for split in SPLITS}
    files = {CAPTIONS: _text(data, kept)} | ({ALL_CAPTIONS: _text(data, rows)} if captioned < 1 else {})
    _check_empty(folder, files)
    everything = [example for split in SPLITS for example in splits[split]]
    targets = iter([place for split in SPLITS for place in places[split]])
    for example in everything if watch is None else watch(everything, len(everything)):
        _write_image(data, example, folder / next(targets))
    for name, text in files.items():  # last: a folder with captions is whole
        write_text(folder / name, text)
    counts = ", ".join(f"{len(kept[split]):,} {split}" for split in SPLITS)
    lines = [f"{folder / CAPTIONS}: {sum(map(len, kept.values())):,} images with captions ({counts})"]
    hidden = len(splits["train"]) - len(kept["train"])
    if hidden:
        lines.append(f"{folder / UNCAPTIONED}: {hidden:,} training images without; {ALL_CAPTIONS} has their captions")
    return lines


def _keeping(train: Sequence[Example], share: float, seed: int) -> set[str]:
    """Ids of the training images that keep their captions, at least one."""
    order = seeded_order([example.image_id for example in train], seed)
    return {str(train[place].image_id) for place in order[: max(1, round(share * len(train)))]}


def _names(examples: list[Example]) -> dict[str, str]:
    """File name of each image by its id: its own; where two have the same name, a number before it."""
    taken: set[str] = set()
    names = {}
    for place, example in enumerate(examples):
        if example.image is None:
            raise DataError(f"{example.origin or example.image_id}: has captions alone and no image")
        file = example.image.file
        name = f"{PurePosixPath(str(example.image_id)).stem}.png" if file is None else file.name
        names[str(example.image_id)] = name = f"{place}-{name}" if name in taken else name
        taken.add(name)
    return names


def _place(split: Split, example: Example, names: dict[str, str], keep: set[str]) -> str:
    key = str(example.image_id)
    return f"{UNCAPTIONED if split == 'train' and key not in keep else CAPTIONED}/{names[key]}"


def _text(data: CaptionDataModule, rows: dict[Split, list[tuple[Example, str]]]) -> str:
    """JSON lines: an image with its captions, or a caption with its label."""
    lines = [line for split in SPLITS for example, place in rows[split] for line in _lines(data, split, example, place)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _lines(data: CaptionDataModule, split: Split, example: Example, place: str) -> Iterator[dict[str, Any]]:
    if not example.conditions:
        yield {"image": place, "captions": list(example.captions), "split": split}
        return
    for caption, number in zip(example.captions, example.conditions, strict=True):
        label = "" if number < 0 else data.condition_names[number]
        yield {"image": place, "caption": caption, "label": label, "split": split}


def _check_empty(folder: Path, files: dict[str, str]) -> None:
    """Refuses a folder with captions of something else."""
    for name in (CAPTIONS, ALL_CAPTIONS):
        path = folder / name
        if path.exists() and read_text(path) != files.get(name):
            raise UserError(
                f"{path} is there already and has other captions: choose another --out, or remove the folder"
            )


def _write_image(data: CaptionDataModule, example: Example, target: Path) -> None:
    if target.is_file():
        return
    assert example.image is not None, "checked with the names"
    source = example.image.file
    with replacing(target) as file:
        if source is None:
            data.open_image(example).save(file, "PNG")
            return
        with open_regular(source, "an image", DataError) as opened:
            while block := opened.read(_BLOCK):
                file.write(block)
