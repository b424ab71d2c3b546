"""Draws a scene: anti-aliased shapes on a textured background with noise.

Everything is integer arithmetic on uint8 pixels, so that a scene gives the same image bit by bit on every platform.
Letters: S side of the image in pixels, P side of a shape's patch.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from datamodules.scenes.draws import Draws
from datamodules.scenes.generator import CANVAS, Scene, SceneObject

MIN_SIZE = 64
_OVERSAMPLING = 8
_TEXTURE_GRID = 7
_PAINT = {
    "red": (222, 38, 38),
    "green": (34, 172, 52),
    "blue": (38, 82, 232),
    "yellow": (244, 220, 36),
    "purple": (168, 48, 200),
    "white": (246, 246, 246),
}


def render(scene: Scene, image_size: int = MIN_SIZE) -> Image.Image:
    """Draws a scene as an RGB image of `image_size` x `image_size` pixels."""
    return Image.fromarray(render_array(scene, image_size))


def render_array(scene: Scene, image_size: int = MIN_SIZE) -> NDArray[np.uint8]:
    """Draws a scene.

    Args:
        scene: what to draw.
        image_size: side S in pixels, at least 64.

    Returns:
        `(S, S, 3)` uint8, red, green, blue.

    Raises:
        UserError: the size is too small for the small shapes to be distinguished.
    """
    if image_size < MIN_SIZE:
        raise UserError(f"image_size {image_size} is too small for scenes; use at least {MIN_SIZE}")
    draws = Draws(scene.background, len(scene.objects))
    pixels = _background(draws, image_size)
    for item in scene.objects:
        _paint(pixels, item, draws, image_size)
    # the sum of two bytes is triangular in [-255, 255]; >> 5 leaves noise of about 3 grey levels per channel
    noise = draws.octets(2 * pixels.size).reshape(2, *pixels.shape)
    pixels += ((noise[0].astype(np.int16) + noise[1]) >> 5) - 8
    return pixels.clip(0, 255).astype(np.uint8)


def _background(draws: Draws, size: int) -> NDArray[np.int16]:
    """Makes a dull, dark to medium texture: smooth clouds of two shades with stripes, checks or nothing on top."""
    base = np.array([draws.between(50, 110) for _ in range(3)], dtype=np.int32)
    # pull the base towards grey: strong colours are reserved for the objects
    base = (base + 2 * int(base.sum()) // 3) // 3
    grid = draws.octets(_TEXTURE_GRID * _TEXTURE_GRID).astype(np.int32).reshape(_TEXTURE_GRID, _TEXTURE_GRID)
    weights = _interpolation(size)
    clouds = (weights @ grid @ weights.T) >> 16  # (S, S) in [0, 255]
    shade = (clouds - 128) >> 2
    pattern = draws.below(4)
    if pattern:
        period, depth = size // draws.between(8, 14), draws.between(6, 14)
        ramp = np.arange(size) // max(period // 2, 1)
        lines = {
            1: np.broadcast_to(ramp[:, None], (size, size)),
            2: np.broadcast_to(ramp[None, :], (size, size)),
            3: ramp[:, None] + ramp[None, :],
        }[pattern]
        shade = shade + depth * (lines & 1) - depth // 2
    return (base[None, None, :] + shade[:, :, None]).astype(np.int16)


@lru_cache(maxsize=8)
def _interpolation(size: int) -> NDArray[np.int32]:
    """Linear interpolation from the texture grid to pixels as integers, `(S, 7)`, each row sums to 256."""
    weights = np.zeros((size, _TEXTURE_GRID), dtype=np.int32)
    for pixel in range(size):
        position = pixel * (_TEXTURE_GRID - 1) * 256 // size
        cell, fraction = divmod(position, 256)
        weights[pixel, cell] += 256 - fraction
        weights[pixel, cell + 1] += fraction
    return weights


def _paint(pixels: NDArray[np.int16], item: SceneObject, draws: Draws, size: int) -> None:
    """Blends one object over the image, its colour a little lighter or darker each time."""
    x, y, r = (value * size for value in (item.x, item.y, item.radius))
    left, top = (x - r) // CANVAS, (y - r) // CANVAS
    mask = _mask(item.shape, x - left * CANVAS, y - top * CANVAS, r)
    side = mask.shape[0]
    light = draws.between(-14, 8)
    paint = np.array([channel + light for channel in _PAINT[item.colour]], dtype=np.int32)
    patch = pixels[top : top + side, left : left + side]
    cover = mask[: patch.shape[0], : patch.shape[1], None]
    patch[...] = (patch * (256 - cover) + paint * cover) >> 8


@lru_cache(maxsize=4096)
def _mask(shape: str, x: int, y: int, radius: int) -> NDArray[np.int32]:
    """Share of every pixel that a shape covers, `(P, P)` in [0, 256]; x, y, radius in pixels times `CANVAS`."""
    side = -(-(max(x, y) + radius) // CANVAS) + 1
    steps = np.arange(side * _OVERSAMPLING, dtype=np.int64) * 2 + 1
    points = steps * CANVAS // (2 * _OVERSAMPLING)
    dx, dy = points[None, :] - x, points[:, None] - y
    if shape == "circle":
        inside = dx * dx + dy * dy <= radius * radius
    elif shape == "square":
        # as wide as the circle: one of the same area would hardly differ from it at a dozen pixels
        inside = np.maximum(abs(dx), abs(dy)) <= radius
    elif shape == "triangle":
        inside = (dy <= radius * 7 // 8) & (2 * abs(dx) <= dy + radius)
    else:
        inside = (np.maximum(abs(dx), abs(dy)) <= radius) & (np.minimum(abs(dx), abs(dy)) * 3 <= radius)
    counts = inside.reshape(side, _OVERSAMPLING, side, _OVERSAMPLING).sum(axis=(1, 3))
    mask: NDArray[np.int32] = (counts * 256 // _OVERSAMPLING**2).astype(np.int32)
    return mask
