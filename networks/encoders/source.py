"""Where image features come from: an encoder of the network's own, or features that the batch brings.

Letters: B images, H x W pixels, R regions, D width of their features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.batch import Batch
from core.errors import UserError
from networks.encoders.base import ImageEncoder
from networks.encoders.build import build_encoder
from networks.layers.pooling import masked_mean
from networks.layers.sequences import on_host


def own_encoder(
    name: str | None,
    feature_dim: int | None,
    needs_own: Mapping[str, bool] | None = None,
    *,
    weights: str | None = None,
    gradient_checkpointing: bool = False,
    num_outputs: int | None = None,
) -> ImageEncoder | None:
    """Builds the encoder of a network that reads images; None where batches bring features.

    Args:
        name: the network's own encoder, see `networks.encoders.build.build_encoder`.
        feature_dim: width of the data module's features, None when it gives images.
        needs_own: options that mean something only for an encoder of the network's own, and whether each is given.
        weights: weights of the encoder, as `build_encoder` takes them.
        gradient_checkpointing: recompute blocks in the backward pass.
        num_outputs: width of the encoder's vector; None: its usual one.

    Raises:
        UserError: see `check_one_encoder`.
    """
    check_one_encoder(name, feature_dim, needs_own or {})
    if name is None:
        return None
    return build_encoder(name, weights, gradient_checkpointing=gradient_checkpointing, num_outputs=num_outputs)


def check_one_encoder(name: str | None, feature_dim: int | None, needs_own: Mapping[str, bool]) -> None:
    """Makes sure that exactly one of data module and module has an image encoder; arguments as of `own_encoder`.

    Raises:
        UserError: neither or both have one, or options are for one that is not there.
    """
    if name is None and feature_dim is None:
        raise UserError(
            "there is no image encoder: name one in data.init_args.encoder (frozen, features computed once) or in "
            "model.init_args.image_encoder (frozen, fine-tuned or random); captions alone need none, with use_image: "
            "false in an emotion model"
        )
    if name is not None and feature_dim is not None:
        raise UserError(
            f"image_encoder is '{name}', but the data module has an encoder, too, so it gives features: set "
            "data.init_args.encoder and encoder_weights, or image_encoder, to null"
        )
    check_own_options(name, needs_own)


def check_own_options(name: str | None, needs_own: Mapping[str, bool]) -> None:
    """Makes sure that options of the network's own encoder have one; arguments as of `own_encoder`.

    Raises:
        UserError: there is none, and one of the options is given.
    """
    for option in (option for option, given in needs_own.items() if given and name is None):
        raise UserError(
            f"{option} is given without an image_encoder, and the data module's encoder, whose features are stored, is "
            "frozen: set data.init_args.encoder to null and image_encoder here"
        )


def image_regions(
    batch: Batch, encoder: ImageEncoder | None, *, feature_dim: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Region features of the images of a batch: stored ones if the batch has them, else those of the encoder.

    Stored features are converted to `dtype`, because feature stores hold half precision. Those of masked regions are
    set to zero, so that padding, even NaN, never reaches the network (0 times NaN is NaN).

    Args:
        batch: with `features` `(B, R, D)` and, where regions are missing, `feature_mask` `(B, R)`; or with `image`.
        encoder: computes the grid of an image; None: the batch must have features.
        feature_dim: D that the network expects.
        dtype: of the network's parameters.

    Returns:
        Regions `(B, R, D)`, and True where one is real `(B, R)`, bool; None: all are.

    Raises:
        UserError: the batch has neither features nor images that an encoder could read, its features have another
            width, or an image has no real region.
    """
    if "features" not in batch:
        if encoder is None:
            raise UserError(
                "the batch has no features and the network no image encoder; set data.init_args.encoder or "
                "model.init_args.image_encoder"
            )
        return encoder.grid(images_of(batch)), None
    regions, mask = batch["features"], batch.get("feature_mask")
    if regions.shape[2] != feature_dim:
        raise UserError(
            f"features have {regions.shape[2]} channels and the network expects {feature_dim}; set feature_dim to the "
            "encoder's, or build the feature store again"
        )
    regions = regions.to(dtype)
    if mask is None:
        return regions, None
    if not all(any(row) for row in on_host(mask)):
        raise UserError("feature_mask hides every region of an image; leave at least one")
    return regions.masked_fill(~mask.unsqueeze(2), 0.0), mask


def images_of(batch: Batch) -> Tensor:
    """Images of a batch, `(B, 3, H, W)`.

    Raises:
        UserError: it has none.
    """
    if "image" not in batch:
        raise UserError(
            "the batch has neither images nor features, but the network reads images; load images, or set "
            "model.init_args.use_image to false in an emotion model that is to read captions only"
        )
    return batch["image"]


def mean_region(batch: Batch, *, feature_dim: int, dtype: torch.dtype) -> Tensor:
    """Mean of the real regions that a batch brings, `(B, D)`; arguments and errors as for `image_regions`."""
    regions, mask = image_regions(batch, None, feature_dim=feature_dim, dtype=dtype)
    return masked_mean(regions, all_real(regions) if mask is None else mask)


def all_real(regions: Tensor) -> Tensor:
    """The mask of regions that are all real: `(B, R, D)` to `(B, R)`, bool."""
    return torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
