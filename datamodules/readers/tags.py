"""Tags: captions that a captioner has written for pictures without any, as ``tag`` and ``merge`` leave them.

Letters: n pictures.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.errors import DataError, UserError
from core.inputs import damage, open_regular
from core.parquet import open_table, read_rows

Certainty = Literal["confidence", "agreement"]
PARTS = "part-*.parquet"
_TYPES = {"image": pa.string(), "caption": pa.string(), "confidence": pa.float32(), "agreement": pa.float32()}
DRAWN = "captions"
"""Column of several captions of a picture, which a table may have."""
_AGAIN = "give the folder of tag --out, or the table of merge"
_ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Pictures with a caption each.

    Attributes:
        images: n names.
        captions: n captions, none empty.
        certainty: how sure the captioner is, ``confidence`` and ``agreement``, `(n,)` each, float32 in [0, 1].
        drawn: other captions of each, drawn at random, n lists; empty where the table has none.
        skipped: pictures that have no caption.
    """

    images: list[str]
    captions: list[str]
    certainty: dict[str, NDArray[np.float32]]
    drawn: list[list[str] | None] = field(default_factory=list)
    skipped: int = 0

    def captions_of(self, place: int) -> tuple[str, ...]:
        """The captions of a picture to train on: those drawn, where there are some, else the caption."""
        drawn = (self.drawn[place] if self.drawn else None) or []
        return tuple(dict.fromkeys(text for text in drawn if text)) or (self.captions[place],)


def read_tags(path: str | Path) -> Tags:
    """Reads a table of tags, or the parts in a folder.

    Raises:
        DataError: there is none, or it is damaged or of another kind.
    """
    path = Path(path)
    files = sorted(path.glob(PARTS)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no {PARTS} in it; {_AGAIN}")
    table = pa.concat_tables(_read(file) for file in files)
    whole = pc.and_(table["caption"].is_valid(), pc.not_equal(table["caption"], ""))
    found = table.filter(whole)
    if found["image"].null_count:
        raise DataError(f"{path}: column 'image' has empty cells; {_AGAIN}")
    certainty = {name: found[name].to_numpy() for name in ("confidence", "agreement")}
    for name, values in certainty.items():
        if len(values) and not (values.min() >= 0 and values.max() <= 1):  # not-a-number fails as well
            raise DataError(f"{path}: column '{name}' has values that are not from 0 to 1; {_AGAIN}")
    return Tags(
        images=found["image"].to_pylist(),
        captions=found["caption"].to_pylist(),
        certainty=certainty,
        drawn=found[DRAWN].to_pylist() if DRAWN in found.column_names else [],
        skipped=table.num_rows - found.num_rows,
    )


def _read(file: Path) -> pa.Table:
    with damage(file, "a table of tags", _AGAIN, DataError), open_regular(file) as opened:
        table = open_table(opened)
        missing = [name for name in _TYPES if name not in table.schema_arrow.names]
        if missing:
            raise DataError(f"{file}: has no column '{missing[0]}'; {_AGAIN}")
        types = _TYPES | ({DRAWN: pa.list_(pa.string())} if DRAWN in table.schema_arrow.names else {})
        found = read_rows(table, opened, columns=list(types))
        return found.cast(pa.schema(list(types.items())))


def selected(
    tags: Tags,
    *,
    min_confidence: float = 0.0,
    min_agreement: float = 0.0,
    share: float = 1.0,
    most_repeats: int | None = None,
    rank_by: Certainty = "confidence",
) -> list[int]:
    """Chooses tags to train on.

    Those below a bound go first, then, of pictures with the same caption, all but the surest ones, then all but the
    surest ones of all.

    Args:
        tags: the tags.
        min_confidence: least geometric mean of the probabilities of the tokens.
        min_agreement: least agreement with the other beams.
        share: most of the n tags that are kept, as a share.
        most_repeats: pictures that may have the same caption; None: any number. A captioner gives frequent captions to
            what it does not know, and a student learns them.
        rank_by: which of the two numbers tells the surest; equal ones in their order.

    Returns:
        Their places, in the order of the table.

    Raises:
        UserError: an option is out of range.

    >>> number = np.array([0.9, 0.5, 0.7, 0.8], np.float32)
    >>> tags = Tags(images=list("abcd"), captions=["x", "x", "x", "y"], certainty={"confidence": number})
    >>> selected(tags, most_repeats=1), selected(tags, share=0.5), selected(tags, share=0.5, most_repeats=2)
    ([0, 3], [0, 3], [0, 3])
    """
    for name, value in {"min_confidence": min_confidence, "min_agreement": min_agreement, "share": share}.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value:g}: expected 0 to 1")
    if most_repeats is not None and most_repeats < 1:
        raise UserError(f"most_repeats is {most_repeats}: expected at least 1")
    rank = tags.certainty[rank_by]
    bounds = {"confidence": min_confidence, "agreement": min_agreement}
    enough = np.ones(len(tags.images), bool)
    for name, bound in bounds.items():
        if bound > 0:
            enough &= tags.certainty[name] >= np.float32(bound)
    order = [place for place in np.argsort(-rank, kind="stable").tolist() if enough[place]]
    if most_repeats is not None:
        order = _diverse(order, tags.captions, most_repeats)
    return sorted(order[: round(share * len(tags.images))])


def _diverse(order: Sequence[int], captions: Sequence[str], most: int) -> list[int]:
    """The first places of each caption."""
    seen: Counter[str] = Counter()
    kept = []
    for place in order:
        seen[captions[place]] += 1
        if seen[captions[place]] <= most:
            kept.append(place)
    return kept


def file_name(image: str) -> str:
    r"""Name of a picture's file: escapes of what is not UTF-8 become that again.

    >>> file_name("caf\\udce9.jpg") == "caf\udce9.jpg"
    True
    """
    return _ESCAPED.sub(lambda found: chr(0xDC00 + int(found[1], 16)), image)
