"""Looking at every picture and caption of a data set before time is spent on it.

`leave_out_bad_images` serves ``on_bad_image=skip``; `check_data` is what ``data check`` prints.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from core.errors import DataError
from datamodules.base import CaptionDataModule, Split
from datamodules.loading.dataset import Example
from datamodules.readers.images import WAYS_OUT
from datamodules.readers.records import Problem

OpenImage = Callable[[Example], Image.Image]

_log = logging.getLogger(__name__)
_LISTED = 20
_Result = TypeVar("_Result")


@dataclass
class Findings:
    """What `check_data` found.

    Attributes:
        splits: for each split the number of images and captions, captions per image, words per caption.
        problems: what has to be mended, in the order in which it was found.
        notes: what is good to know.
    """

    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Number of problems of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))


def leave_out_bad_images(examples: Sequence[Example], open_image: OpenImage, cache_dir: Path) -> list[Example]:
    """Decodes every picture once and leaves out those that fail, before training starts.

    They are left out up front and never replaced while training, so that all processes and a resumed run see the same
    list. Results are kept in a file under `cache_dir` and hold as long as path, size and modification time stay the
    same. How many were left out is logged, and which.

    Args:
        examples: the pictures of one split.
        open_image: reads the picture of an example and raises DataError when it is bad.
        cache_dir: folder of files that can be made again.

    Returns:
        The good ones, in the same order.
    """
    # stamps are taken before decoding: a file that changes meanwhile misses next time
    stamps = [_stamp(example.image) for example in examples]
    # one file for all splits of the same folders, so that a changed split looks at new pictures only
    folders = sorted({str(Path(example.image).parent) for example in examples})
    digest = hashlib.sha256("\n".join(folders).encode()).hexdigest()[:16]
    cache_file = cache_dir / "checked_images" / f"{digest}.json"
    known = _read_cache(cache_file)
    errors: list[str | None] = [None] * len(examples)
    unknown = []
    for index, (example, stamp) in enumerate(zip(examples, stamps, strict=True)):
        entry = known.get(example.image)
        if stamp is not None and isinstance(entry, list) and entry[:2] == stamp and len(entry) == 3:
            errors[index] = entry[2]
        else:
            unknown.append(index)
    if unknown:
        _log.info("on_bad_image=skip: looking at %d pictures", len(unknown))
        found = _in_threads(lambda index: _error_of(examples[index], open_image), unknown)
        for index, error in zip(unknown, found, strict=True):
            errors[index] = error
        rows = zip(examples, stamps, errors, strict=True)
        _write_cache(cache_file, known | {row[0].image: [*row[1], row[2]] for row in rows if row[1] is not None})
    bad = [error.removesuffix(f"; {WAYS_OUT}") for error in errors if error is not None]
    if bad:
        shown = "; ".join(bad[:_LISTED]) + (f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else "")
        _log.warning("on_bad_image=skip: %d of %d pictures are left out: %s", len(bad), len(examples), shown)
    return [example for example, error in zip(examples, errors, strict=True) if error is None]


def check_data(
    data: CaptionDataModule, progress: Callable[[Iterable[Example], int], Iterable[Example]] | None = None
) -> Findings:
    """Reads all annotations, decodes all pictures and compares the splits.

    Found as problems: what the readers report (broken, empty, duplicate records, missing files), pictures that do not
    decode, the same image id, file or picture (equal pixels) in two splits. Told as notes: captions that also stand
    in train, equal pictures inside a split, val and test being the same pictures.

    Args:
        data: the data module; its ``on_bad_image`` must be "error", so that nothing is left out.
        progress: wraps the examples, given their number, and shows how far it is.
    """
    findings = Findings()
    # data modules that read annotations offer their report, so that reading goes on behind a problem
    collected: dict[Problem, None] = {}
    if hasattr(data, "report"):
        data.report = lambda problem: collected.setdefault(problem)
    examples: dict[str, list[Example]] = {}
    names: tuple[Split, ...] = ("train", "val", "test")
    for split in names:
        try:
            examples[split] = data.load_examples(split)
            findings.splits[split] = _statistics(examples[split])
            if not examples[split] and not collected:
                collected.setdefault(Problem("file", f"{data.root}: no picture in split '{split}'"))
        except DataError as error:
            collected.setdefault(Problem("file", str(error)))
    findings.problems += collected
    if examples.get("val") and examples.get("val") == examples.get("test"):
        findings.notes.append(
            "val and test are the same pictures: choose nothing on the one that you report on the other"
        )
        del examples["test"]
    digests = _digests(examples, data.open_image, findings, progress)
    _compare_splits(examples, digests, findings)
    _compare_captions(examples, findings)
    if not any(problem.kind == "file" for problem in findings.problems):
        problems, notes = data.check_facts()
        findings.problems += problems
        findings.notes += notes
    return findings


def _digests(
    examples: dict[str, list[Example]],
    open_image: OpenImage,
    findings: Findings,
    progress: Callable[[Iterable[Example], int], Iterable[Example]] | None,
) -> dict[str, str]:
    """Decodes every picture once: a digest of its pixels by ``image``; adds those that fail to the problems."""
    # texts without pictures have an empty path
    named = {example.image: example for split in examples.values() for example in split if example.image}
    unique = list(named.values())
    results = _in_threads(lambda example: _digest_of(example, open_image), unique)
    digests = {}
    for example in progress(unique, len(unique)) if progress else unique:
        digest, error = next(results)
        if error is None:
            digests[example.image] = digest
        else:
            origin = "" if example.origin in error else f" (for {example.origin})"
            findings.problems.append(Problem("undecodable", error + origin))
    return digests


def _compare_splits(examples: dict[str, list[Example]], digests: dict[str, str], findings: Findings) -> None:
    """Finds what is in two splits: the same id, file or pixels; equal pictures inside a split are a note."""
    seen: dict[tuple[str, str], tuple[str, Example]] = {}
    twins: Counter[str] = Counter()
    for split, members in examples.items():
        for example in members:
            keys = [("image id", str(example.image_id))] + ([("file", example.image)] if example.image else [])
            if example.image in digests:
                keys.append(("picture", digests[example.image]))
            told = False
            for kind, key in keys:
                other_split, other = seen.setdefault((kind, key), (split, example))
                if other_split != split and not told:
                    what = f"the same {kind} is in split {other_split}: {other.origin or other.image}"
                    message = f"{example.origin or example.image}, split {split}: {what}; keep it in one of them"
                    findings.problems.append(Problem("leak", message))
                    told = True  # an equal file has equal pixels: one line is enough
                elif other is not example and kind == "picture" and other_split == split:
                    twins[split] += 1
    for split, count in twins.items():
        findings.notes.append(f"{count} pictures of {split} have the same pixels as another one there")


def _compare_captions(examples: dict[str, list[Example]], findings: Findings) -> None:
    """Notes how many captions of val and test stand word by word in train."""
    train = {text.lower() for example in examples.get("train", []) for text in example.captions}
    for split in ("val", "test"):
        captions = [text.lower() for example in examples.get(split, []) for text in example.captions]
        shared = sum(text in train for text in captions)
        if shared and train:
            findings.notes.append(f"{shared} of {len(captions)} captions of {split} also stand in train, word by word")


def _statistics(examples: Sequence[Example]) -> dict[str, float]:
    """Numbers for the table of splits."""
    counts = [len(example.captions) for example in examples] or [0]
    words = [len(text.split()) for example in examples for text in example.captions] or [0]
    return {
        "images": len(examples),
        "captions": sum(counts),
        "fewest_captions": min(counts),
        "most_captions": max(counts),
        "mean_words": round(sum(words) / len(words), 1),
        "most_words": max(words),
    }


def _error_of(example: Example, open_image: OpenImage) -> str | None:
    """Why a picture cannot be used, or None."""
    try:
        open_image(example)
    except DataError as error:
        return str(error)
    return None


def _digest_of(example: Example, open_image: OpenImage) -> tuple[str, str | None]:
    """Digest of a picture's pixels and why it cannot be used, or None."""
    try:
        image = open_image(example)
    except DataError as error:
        return "", str(error)
    return hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).hexdigest(), None


def _in_threads(function: Callable[[Any], _Result], items: Sequence[Any]) -> Iterator[_Result]:
    """Results in order; Pillow decodes outside of the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # in pieces: the pool would take up all items, hundreds of thousands, at once
        for start in range(0, len(items), 1024):
            yield from pool.map(function, items[start : start + 1024])


def _stamp(image: str) -> list[int] | None:
    """Size and modification time of a file; None for what is no file and therefore looked at every time."""
    try:
        status = Path(image).stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _read_cache(path: Path) -> dict[str, Any]:
    """Earlier results; none when the file is missing or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_cache(path: Path, entries: dict[str, Any]) -> None:
    """Writes the results in one go, for several processes may do so at once; a full disk costs only the cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(entries, file)
        Path(file.name).replace(path)
    except OSError as error:
        _log.warning("%s: cannot keep which pictures are good (%s); they are looked at again next time", path, error)
