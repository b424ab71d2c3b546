"""The batch that every data module makes and every module reads.

Letters: B images, N captions, T tokens of the longest caption of the batch, R image regions, D feature width,
C labels, L labels of captions.
"""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """One batch. Every key is optional: a data module fills those that its task needs.

    Captions are stored flat, so that an image is encoded once however many captions it has: caption n belongs to
    image ``image_index[n]``.
    """

    image: Tensor
    """Normalised pictures, `(B, 3, H, W)`, float."""
    features: Tensor
    """Precomputed region features, `(B, R, D)`, float."""
    feature_mask: Tensor
    """True where a region is real, `(B, R)`, bool."""
    caption_ids: Tensor
    """BOS, words, EOS, then PAD up to T, `(N, T)`, long."""
    caption_lengths: Tensor
    """Tokens of each caption with BOS and EOS, `(N,)`, long."""
    condition: Tensor
    """Label that each caption is conditioned on, `(N,)`, long in [0, L) for L labels, -1 for none; only data whose
    captions have such labels bring it."""
    image_index: Tensor
    """The image of each caption, `(N,)`, long in [0, B)."""
    labels: Tensor
    """Multi-label targets, `(B, C)`, float in [0, 1]."""
    references: list[list[str]]
    """All captions of each image as written, B lists."""
    image_id: list[str]
    """Identifier of each image, B strings."""
    scene: list[str]
    """JSON description of each synthetic scene, B strings; only the synthetic scenes have it."""
