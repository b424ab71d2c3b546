"""Checks of every image and caption of a data set before time is spent on it: what ``data check`` prints."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.errors import DataError
from datamodules.audit.distributions import Distribution, distributions
from datamodules.base import CaptionDataModule
from datamodules.readers.bad_images import in_threads
from datamodules.readers.image_refs import ImageRef
from datamodules.readers.images import SKIP
from datamodules.readers.records import SPLITS, Example, Problem


@dataclass(kw_only=True)
class Findings:
    """What `check_data` found.

    Attributes:
        splits: for each split the number of images and captions, captions per image, words per caption.
        problems: what has to be corrected, in the order in which it was found.
        notes: what is good to know.
        distributions: sizes, caption lengths, labels and words, of all splits together.
    """

    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Number of problems of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))

    def skip_bad_images(self) -> None:
        """Leaves out what ``on_bad_image=skip`` makes training do without; a note says how much that is."""
        kept = [problem for problem in self.problems if SKIP not in problem.message]
        if skipped := len(self.problems) - len(kept):
            self.notes.append(f"on_bad_image=skip: {skipped} images are skipped; without it, each is listed here")
        self.problems = kept


def check_data(
    data: CaptionDataModule, progress: Callable[[Iterable[Example], int], Iterable[Example]] | None = None
) -> Findings:
    """Reads all annotations, decodes all images and compares the splits.

    Found as problems: what the readers report (broken, empty, duplicate records, missing files), images that do not
    decode, the same image id, file or image (equal pixels) in two splits. Told as notes: captions that also stand
    in train, equal images inside a split, val and test being the same images.

    Args:
        data: the data module; its ``on_bad_image`` must be "error", so that nothing is skipped.
        progress: wraps the examples, given their number, and shows how far it is.
    """
    findings = Findings()
    examples: dict[str, Sequence[Example]] = {}
    with data.collected_problems() as problems:
        for split in SPLITS:
            try:
                examples[split] = data.load_examples(split)
                findings.splits[split] = split_statistics(examples[split])
                if not examples[split] and not problems:
                    data.report(Problem("file", f"{data.root}: no image in split '{split}'"))
            except DataError as error:
                data.report(Problem("file", str(error)))
    findings.problems += problems
    if examples.get("val") and examples.get("val") == examples.get("test"):
        findings.notes.append(
            "val and test are the same images: choose nothing on the one that you report on the other"
        )
        del examples["test"]
    digests, sizes = _digests(examples, findings, progress)
    _compare_splits(examples, digests, findings, data.shares_images)
    findings.notes += shared_caption_notes(examples)
    if not any(problem.kind == "file" for problem in findings.problems):
        with data.collected_problems():  # they are known by now
            found, notes = data.check_facts()
            findings.distributions = distributions(data, [own for split in examples.values() for own in split], sizes)
        findings.problems += found
        findings.notes += notes
    return findings


def _digests(
    examples: Mapping[str, Sequence[Example]],
    findings: Findings,
    progress: Callable[[Iterable[Example], int], Iterable[Example]] | None,
) -> tuple[dict[ImageRef, str], list[tuple[int, int]]]:
    """Decodes every image once: a digest of its pixels by ``image``, and all sizes; adds the others to the problems."""
    named = {example.image: example for split in examples.values() for example in split if example.image is not None}
    unique = list(named.values())
    results = in_threads(_digest_of, unique)
    digests: dict[ImageRef, str] = {}
    sizes = []
    for example in progress(unique, len(unique)) if progress else unique:
        digest, size, error = next(results)
        if error is None:
            assert example.image is not None, "only those with an image are named"
            digests[example.image] = digest
            sizes.append(size)
        else:
            origin = "" if example.origin in error else f" (for {example.origin})"
            findings.problems.append(Problem("undecodable", error + origin))
    return digests, sizes


def _compare_splits(
    examples: Mapping[str, Sequence[Example]], digests: dict[ImageRef, str], findings: Findings, shared: bool
) -> None:
    """Finds what is in two splits: the same id, file or pixels; equal images inside a split are a note.

    Args:
        examples: split to its examples.
        digests: of the pixels of each image.
        findings: where problems and notes go.
        shared: whether several examples of a split may be of one image.
    """
    seen: dict[tuple[str, str], tuple[str, Example]] = {}
    twins: Counter[str] = Counter()
    for split, members in examples.items():
        for example in members:
            keys = [("image id", str(example.image_id))]
            if example.image is not None:
                keys.append(("file", example.image_name))
            if example.image in digests:
                keys.append(("image", digests[example.image]))
            reported = False
            for kind, key in keys:
                other_split, other = seen.setdefault((kind, key), (split, example))
                if other_split != split and not reported:
                    what = f"the same {kind} is in split {other_split}: {other.origin or other.image_name}"
                    message = f"{example.origin or example.image_name}, split {split}: {what}; keep it in one of them"
                    findings.problems.append(Problem("leak", message))
                    reported = True  # an equal file has equal pixels: one line is enough
                elif (
                    kind == "image" and other is not example and not (shared and other.image == example.image)
                ) and other_split == split:
                    twins[split] += 1
    for split, count in twins.items():
        findings.notes.append(f"{count} images of {split} have the same pixels as another one there")


def shared_caption_notes(examples: Mapping[str, Sequence[Example]]) -> list[str]:
    """Says how many captions of val and test stand word for word in train.

    Args:
        examples: split to its examples.
    """
    notes = []
    train = {text.lower() for example in examples.get("train", []) for text in example.captions}
    for split in ("val", "test"):
        captions = [text.lower() for example in examples.get(split, []) for text in example.captions]
        shared = sum(text in train for text in captions)
        if shared and train:
            notes.append(f"{shared} of {len(captions)} captions of {split} also stand in train, word for word")
    return notes


def split_statistics(examples: Sequence[Example]) -> dict[str, float]:
    """Numbers for the table of splits: images, captions, captions per image, words per caption."""
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


def _digest_of(example: Example) -> tuple[str, tuple[int, int], str | None]:
    """Digest of an image's pixels and its size, and why it cannot be used, or None."""
    assert example.image is not None, "only those with an image are decoded"
    try:
        image = example.image.open()  # in full, while training may decode a fraction of the pixels
    except DataError as error:
        return "", (0, 0), str(error)
    return hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).hexdigest(), image.size, None
