"""Distances between codes of two networks, for distillation.

Letters: N pairs, D code width.
"""

from typing import Literal, get_args

from torch import Tensor, nn

from core.errors import UserError

Distance = Literal["mse", "cosine", "kl"]


def code_distance(image: Tensor, text: Tensor, kind: Distance, normalized: bool, temperature: float = 1.0) -> Tensor:
    """Distance of image codes from sentence codes, mean over pairs.

    Args:
        image: codes of the image of each sentence, `(N, D)`.
        text: codes of the sentences, `(N, D)`.
        kind: ``mse``: squared distance, summed over D if `normalized` (it is 2 - 2 cosine then) and averaged if not;
            ``cosine``: 1 - cosine; ``kl``: Kullback-Leibler divergence of softmax(image) from softmax(text).
        normalized: scale both to length 1 first. `cosine` is the same either way.
        temperature: divides both before the softmax of ``kl``.

    Returns:
        A scalar; 0 if there are no pairs.

    Raises:
        UserError: unknown kind.
    """
    if kind not in get_args(Distance):
        raise UserError(f"distance is {kind!r}: expected mse, cosine or kl")
    if len(image) == 0:
        return image.sum() + text.sum()
    image, text = image.float(), text.float()
    if normalized:
        image, text = nn.functional.normalize(image, dim=1), nn.functional.normalize(text, dim=1)
    if kind == "mse":
        squares = (image - text).square()
        return squares.sum(dim=1).mean() if normalized else squares.mean()
    if kind == "cosine":
        return (1 - nn.functional.cosine_similarity(image, text, dim=1)).mean()
    return nn.functional.kl_div(
        (image / temperature).log_softmax(dim=1),
        (text / temperature).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
