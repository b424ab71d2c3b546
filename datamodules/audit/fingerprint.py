"""A name for the content of a data set, so that runs on the same data can be found."""

import hashlib
import json
from collections.abc import Sequence

from core.errors import DataError
from datamodules.base import CaptionDataModule
from datamodules.readers.records import Split


def data_fingerprint(data: CaptionDataModule, splits: Sequence[Split] = ("train", "val")) -> str:
    """Digest of the ids, captions and labels of splits, in their order; images are not opened.

    Args:
        data: the data set.
        splits: that are read; one that the data set does not have counts as empty.

    Returns:
        12 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for split in splits:
        try:
            examples = data.examples(split)
        except DataError:
            examples = []
        digest.update(f"{split} {len(examples)}\n".encode())
        for example in examples:
            row = [str(example.image_id), list(example.captions), list(example.labels or ())]
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:12]
