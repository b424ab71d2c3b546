"""Loading pretrained weights into an image encoder that has been built."""

from torch import nn

from networks.encoders.build import build_encoder


def load_encoder_weights(encoder: nn.Module | None, name: str | None, weights: str | None) -> None:
    """Loads weights by name or from a file into an encoder; nothing happens without an encoder or weights.

    Args:
        encoder: from `build_encoder`.
        name: its name.
        weights: see `build_encoder`.

    Raises:
        UserError: the weights cannot be reached or do not match.
    """
    if encoder is not None and name is not None and weights is not None:
        encoder.load_state_dict(build_encoder(name, weights).state_dict())
