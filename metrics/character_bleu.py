"""BLEU over characters: the figure of merit as published for the dual-transfer captioner, kept for comparison only."""

import warnings
from collections.abc import Mapping, Sequence

from core.errors import UserError

_ORDERS = 4


def character_bleu(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """What NLTK's ``sentence_bleu`` gives when it is handed strings, so that its n-grams are of characters.

    Each order is taken by itself (not the geometric mean up to it) and averaged over the captions. COCO captions of
    other images score .60 at order 1 against one reference and .85 against five (measured on 1000 images of val2014):
    the score tells little about captions and must not be compared with BLEU.

    Args:
        predictions: Image id to its caption, raw text.
        references: Image id to its references, raw text.

    Returns:
        ``as_published/bleu1_char`` .. ``as_published/bleu4_char``, in [0, 1].

    Raises:
        UserError: No prediction, or one for an image without references.

    >>> scores = character_bleu({"1": "a cat on a mat"}, {"1": ["the dog ran to an old man"]})
    >>> round(scores["as_published/bleu1_char"], 3)
    0.391
    """
    from nltk.translate.bleu_score import sentence_bleu  # takes a second to import, and few need it

    if not predictions:
        raise UserError("no predictions: expected a caption for at least one image")
    isolated = [tuple(float(i == n) for i in range(n + 1)) for n in range(_ORDERS)]
    totals = [0.0] * _ORDERS
    for image_id, caption in predictions.items():
        if not references.get(image_id):
            raise UserError(f"image {image_id!r} has no references: expected one caption or more")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # NLTK warns of orders without a match: here they are 0
            scores = (
                sentence_bleu(list(references[image_id]), caption, weights=isolated) if caption else [0.0] * _ORDERS
            )
        totals = [total + float(score) for total, score in zip(totals, scores, strict=True)]
    return {f"as_published/bleu{n + 1}_char": total / len(predictions) for n, total in enumerate(totals)}
