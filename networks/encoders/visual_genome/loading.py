"""The Visual Genome detector by name, with the files of the published layout from a folder or the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.hub import WAYS_OUT, WEIGHT_FILES, cached_file, hub_file, hub_weights
from networks.encoders.visual_genome.config import DetectorConfig, read_config
from networks.layers.weights import load_state

if TYPE_CHECKING:
    from networks.encoders.visual_genome.encoder import GenomeEncoder

NAME = "frcnn-vg"
PUBLISHED = "unc-nlp/frcnn-vg-finetuned"
"""The published weights, on the hub."""
_CONFIG = "config.yaml"


def build_genome(name: str, weights: str | None) -> "GenomeEncoder":
    """Builds the detector. With `weights` None nothing is downloaded.

    Args:
        name: "frcnn-vg", followed by "@N" for N boxes instead of as many as the settings say (36).
        weights: None for random weights, or a folder or hub id with ``config.yaml`` and ``model.safetensors`` or
            ``pytorch_model.bin``.

    Raises:
        UserError: unknown name, or weights that cannot be reached, read, or do not match their settings.
    """
    from networks.encoders.visual_genome.encoder import GenomeEncoder  # imports torchvision

    boxes = _boxes(name)
    if weights is None:
        return GenomeEncoder(boxes=boxes)
    config, state = _files(weights)
    encoder = GenomeEncoder(config=read_config(config), boxes=boxes)
    load_state(encoder.network, state, prefixes=("module.", "model."))
    return encoder


def genome_shape(name: str, weights: str | None) -> tuple[int, int]:
    """Width and number of the boxes; settings are read where they are on this machine, and nothing is downloaded."""
    config = DetectorConfig()
    if weights is not None:
        path = Path(weights) / _CONFIG if Path(weights).is_dir() else cached_file(weights, _CONFIG)
        if path is not None and path.is_file():
            config = read_config(path)
    return config.resnet.width, _boxes(name) or config.heads.boxes


def genome_files(weights: str) -> list[Path]:
    """The files of a folder that the detector is read from; none where the weights are no folder."""
    folder = Path(weights)
    return [folder / name for name in (_CONFIG, *WEIGHT_FILES) if (folder / name).is_file()][:2]


def _boxes(name: str) -> int | None:
    """The number of boxes that a name says.

    Raises:
        UserError: it is none.
    """
    _, at, number = name.partition("@")
    if at and not (number.isdecimal() and 0 < int(number) <= 1000):
        raise UserError(f"image encoder {name!r}: expected {NAME}, or {NAME}@N for N boxes, 1 to 1000")
    return int(number) if at else None


def _files(weights: str) -> tuple[Path, Path]:
    """Settings and weights of a folder or hub id.

    Raises:
        UserError: they are not there.
    """
    folder = Path(weights)
    if folder.is_dir():
        found = genome_files(weights)
        if len(found) < 2 or found[0].name != _CONFIG:
            raise UserError(
                f"encoder weights '{weights}': the folder has {', '.join(path.name for path in found) or 'neither'}: "
                f"expected {_CONFIG} and {' or '.join(WEIGHT_FILES)}, as {PUBLISHED} has them"
            )
        return found[0], found[1]
    if folder.exists() or folder.is_absolute() or weights.startswith((".", "~")) or weights.count("/") != 1:
        raise UserError(
            f"encoder weights '{weights}': expected a folder with {_CONFIG} and {' or '.join(WEIGHT_FILES)}, or a hub "
            f"id such as {PUBLISHED}; or set weights to null"
        )
    config = hub_file(weights, _CONFIG)
    state = hub_weights(weights) if config is not None else None
    if config is None or state is None:
        missing = _CONFIG if config is None else " or ".join(WEIGHT_FILES)
        raise UserError(f"{missing} of '{weights}' cannot be reached; {WAYS_OUT}")
    return config, state
