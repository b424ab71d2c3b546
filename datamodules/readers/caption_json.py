"""COCO captions JSON and Karpathy JSON (``dataset_coco.json`` and its relatives)."""

import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.inputs import parse_json, read_text, shown
from datamodules.readers.caption_tables import caption_label
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import (
    Example,
    Problem,
    Report,
    caption_texts,
    clean_caption,
    fail,
    has_keys,
    own_name,
    record_name,
    slashes,
    split_name,
)


def read_coco(path: Path, document: Any = None, report: Report = fail) -> list[Example]:
    """Reads COCO captions: ``images`` with ``id`` and ``file_name``, ``annotations`` with ``image_id`` and ``caption``.

    Args:
        path: the file.
        document: its content, if it was parsed already.
        report: what is done with defects of single records.

    Returns:
        The images in the order of the file, ids as in the file.

    Raises:
        DataError: the file as a whole cannot be used.
    """
    document = parse_json(read_text(path), path) if document is None else document
    images: dict[str, tuple[str | int, str]] = {}  # by the text of the id, as ids are matched everywhere
    for index, image in enumerate(_list(document, "images", path)):
        where = f"{path}, image {record_name(image, 'id', index)}"
        if not has_keys(image, {"id": (int, str), "file_name": (str,)}, where, report):
            continue
        if str(image["id"]) in images:
            report(Problem("duplicate", f"{where}: this id is there twice; every image needs its own id"))
        else:
            images[str(image["id"])] = image["id"], image["file_name"]
    captions = _coco_captions(_list(document, "annotations", path), images, path, report)
    records = []
    for key, (image_id, file) in images.items():
        origin = f"{path}, image {image_id} ({file})"
        if captions[key]:
            records.append(
                Example(image_id=image_id, image=ImageFile(slashes(file)), captions=tuple(captions[key]), origin=origin)
            )
        else:
            report(Problem("empty", f"{origin}: has no caption; add one or remove the image from the list"))
    return records


def read_karpathy(path: Path, document: Any = None, report: Report = fail, label: str | None = None) -> list[Example]:
    """Reads Karpathy's format: ``images`` with ``filename``, ``split`` and ``sentences`` of ``raw`` or ``tokens``.

    The id is ``cocoid`` where it is given, else ``imgid``, else the file's name; ``filepath`` is put before the name.

    Args:
        path: the file.
        document: its content, if it was parsed already.
        report: what is done with defects of single records.
        label: key of a sentence's label, such as SentiCap's ``sentiment``; None: there is none.

    Returns:
        The images in the order of the file, ids as in the file.

    Raises:
        DataError: the file as a whole cannot be used.
    """
    document = parse_json(read_text(path), path) if document is None else document
    records = []
    ids: set[object] = set()
    files: set[object] = set()
    sentence_ids: set[object] = set()
    for index, image in enumerate(_list(document, "images", path)):
        where = f"{path}, image {record_name(image, 'filename', index)}"
        if not has_keys(image, {"filename": (str,), "sentences": (list,)}, where, report):
            continue
        if not isinstance(image.get("filepath") or "", str):
            report(
                Problem("record", f"{where}: 'filepath' is {shown(image['filepath'])}, expected the name of a folder")
            )
            continue
        file = posixpath.join(slashes(image.get("filepath") or ""), slashes(image["filename"]))
        image_id = next((image[key] for key in ("cocoid", "imgid") if isinstance(image.get(key), int | str)), file)
        texts, labels = _karpathy_captions(image["sentences"], where, sentence_ids, report, label)
        split, known = split_name(image.get("split"), where, report)
        if str(image_id) in ids or file in files:
            twice = f"image id {image_id!r}" if str(image_id) in ids else f"file name {file!r}"
            report(Problem("duplicate", f"{where}: {twice} is there twice; remove one of the two records"))
        elif texts and known:
            records.append(
                Example(
                    image_id=image_id,
                    image=ImageFile(file),
                    captions=tuple(texts),
                    caption_labels=tuple(labels) if any(labels) else (),
                    split=split,
                    origin=where,
                )
            )
        ids.add(str(image_id))
        files.add(file)
    return records


def _coco_captions(annotations: list[Any], images: Iterable[str], path: Path, report: Report) -> dict[str, list[str]]:
    """Collects the captions of each image by the text of its id, in the order of the file."""
    captions: dict[str, list[str]] = {key: [] for key in images}
    if annotations and isinstance(annotations[0], dict) and "bbox" in annotations[0]:
        raise DataError(f"{path}: has object instances, no captions; use the captions_*.json")
    seen: set[object] = set()
    for index, annotation in enumerate(annotations):
        # what messages are made of is left until there is one to write: COCO has 591,753 captions
        if not _is_usual(annotation):
            where = f"{path}, annotation {record_name(annotation, 'id', index)}"
            if not has_keys(annotation, {"image_id": (int, str), "caption": (str,)}, where, report):
                continue
            own_name(annotation, "id", where, report)
        text, image_id, own_id = clean_caption(annotation["caption"]), str(annotation["image_id"]), annotation.get("id")
        own_id = own_id if isinstance(own_id, int | str) else None
        repeated = own_id is not None and own_id in seen
        if text and not repeated and image_id in captions:
            captions[image_id].append(text)
        else:
            where = f"{path}, annotation {record_name(annotation, 'id', index)}"
            report(_annotation_problem(where, repeated, None if image_id in captions else image_id))
        seen.add(own_id)
    return captions


def _is_usual(annotation: object) -> bool:
    """Whether an annotation has what it should have; a number that is a truth value is not usual."""
    return (
        isinstance(annotation, dict)
        and type(annotation.get("caption")) is str
        and type(annotation.get("image_id")) in (int, str)
        and type(annotation.get("id")) in (int, str)
    )


def _annotation_problem(where: str, repeated: bool, unknown: str | None) -> Problem:
    """Why a caption is not used: its id is there twice, its image is unknown, or it is empty."""
    if repeated:
        return Problem("duplicate", f"{where}: this id is there twice; every caption needs its own id")
    if unknown is not None:
        wrong = f"its image_id {unknown} is not in the list of images"
        return Problem("record", f"{where}: {wrong}; add the image or remove the caption")
    return Problem("empty", f"{where}: the caption is empty; write one or remove the annotation")


def _karpathy_captions(
    sentences: list[Any], where: str, seen: set[object], report: Report, label: str | None
) -> tuple[list[str], list[str]]:
    """The captions of one image and their labels; `seen` holds the sentence ids of all images before and grows."""
    texts, labels = [], []
    for index, sentence in enumerate(sentences):
        at = f"{where}, sentence {record_name(sentence, 'sentid', index)}"
        found = caption_texts(sentence) if isinstance(sentence, dict) else None
        if found is None or len(found) != 1:
            report(Problem("record", f"{at}: expected an object with 'raw' (a string) or 'tokens' (a list)"))
            continue
        own_id = own_name(sentence, "sentid", at, report)
        if own_id is not None and own_id in seen:
            report(Problem("duplicate", f"{at}: this sentid is there twice; remove one of the two"))
        elif not found[0]:
            report(Problem("empty", f"{at}: the caption is empty; write one or remove the sentence"))
        else:
            texts.append(found[0])
            labels.append("" if label is None else caption_label(sentence.get(label), at, report))
        seen.add(own_id)
    if not sentences:
        report(Problem("empty", f"{where}: has no caption; add one or remove the image from the list"))
    return texts, labels


def _list(document: Any, key: str, path: Path) -> list[Any]:
    """The list under a key of a JSON document."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        found = ", ".join(list(document)[:6]) if isinstance(document, dict) else type(document).__name__
        raise DataError(f"{path}: expected a JSON object with a list {key!r} (found: {found}); is it the right file?")
    return value
