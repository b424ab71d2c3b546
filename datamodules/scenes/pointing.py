"""What an attention attends to: how spread out it is, and whether it attends to what is being named.

The pointing game (Zhang et al. 2016) on the synthetic scenes, whose boxes are known: while a caption names an object,
does the cell with the most attention lie on it? A cell lies on an object when its centre is in the object's box grown
by one cell's side in every direction; a group ("two red circles") is hit by hitting any of its objects. Words that
name nothing do not count. Cells that share the maximum share the credit, so that uniform attention gets the share of
the image that counts as a hit: what pointing at random gives.

Letters: N captions, T tokens of the longest one, R = h x w regions, row by row, P places (steps of captions that name
something).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.loading.tokenization import split_words
from datamodules.scenes.generator import CANVAS, Scene, SceneObject
from datamodules.scenes.grammar import grounded_captions

Grid = tuple[int, int]


class Places(NamedTuple):
    """Steps of captions that name something, and the cells that count as a hit there.

    Attributes:
        caption: `(P,)`, long in [0, N).
        step: `(P,)`, long in [0, T - 1): step s writes word s, counted from 0.
        hit: `(P, R)`, bool.
        inside: cells whose centre is in a box itself, without tolerance, `(P, R)`, bool.
        noun: the word is the last one of the name ("circles" of "two red circles"), `(P,)`, bool. Which object a
            caption begins with is its writer's choice; before the first words of its name nobody can know it.
    """

    caption: Tensor
    step: Tensor
    hit: Tensor
    inside: Tensor
    noun: Tensor


def named_places(
    scenes: Sequence[str], image_index: Sequence[int], captions: Sequence[str], grid: Grid, device: torch.device
) -> Places:
    """Finds the words that name objects in captions of the scenes' own grammar; other captions have none.

    Args:
        scenes: scenes as JSON.
        image_index: scene of each caption, N.
        captions: N captions; one word is one token.
        grid: rows h and columns w.
        device: where the result lives.
    """
    caption, step, masks, nouns = [], [], [], []
    for number, (image, text) in enumerate(zip(image_index, captions, strict=True)):
        named, cells = _named_words(scenes[image], grid)
        for word, group, last in named.get(_plain(text), ()):
            caption.append(number)
            step.append(word)
            masks.append(cells[group])
            nouns.append(last)
    both = torch.stack(masks) if masks else torch.zeros(0, 2, grid[0] * grid[1], dtype=torch.bool)
    hit, inside = both.to(device).unbind(1)
    where = torch.tensor([caption, step], dtype=torch.long, device=device)
    return Places(where[0], where[1], hit, inside, torch.tensor(nouns, dtype=torch.bool, device=device))


def pointing_credit(weights: Tensor, hit: Tensor) -> Tensor:
    """Credit of each place in the pointing game, in [0, 1].

    Args:
        weights: attention, `(P, R)`.
        hit: cells that count, `(P, R)`, bool.

    Returns:
        `(P,)`: share of the cells with the highest weight that count.

    >>> pointing_credit(torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]]), torch.tensor([[False, True, False]] * 2))
    tensor([1.0000, 0.5000])
    """
    peak = weights == weights.amax(dim=1, keepdim=True)
    return (peak & hit).sum(1) / peak.sum(1)


def normalised_entropy(weights: Tensor, regions: Tensor | None = None) -> Tensor:
    """Entropy of attention against the uniform one's: 1 is uniform, 0 is a single region.

    Args:
        weights: `(P, R)`, rows sum to one.
        regions: real regions of each row, `(P,)`; None: all R.

    Returns:
        `(P,)`, in [0, 1]; 0 where there is only one region.

    >>> normalised_entropy(torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]))
    tensor([0.5000, 1.0000])
    """
    weights = weights.float()
    entropy = -torch.xlogy(weights, weights).sum(1)
    count = torch.full_like(entropy, weights.shape[1]) if regions is None else regions.to(entropy.dtype)
    return (entropy / count.clamp_min(2).log()).clamp(0, 1)


def _plain(text: str) -> str:
    """A caption as its words: what is left of it after a word vocabulary."""
    return " ".join(split_words(text))


@lru_cache(maxsize=32768)
def _named_words(scene_json: str, grid: Grid) -> tuple[Mapping[str, tuple[tuple[int, int, bool], ...]], Tensor]:
    """By caption of a scene, the words that name something, what, and whether they end the name; and the cells of that.

    The cells are `(groups, 2, R)`; the first of the two is with tolerance, the second without.
    """
    scene = Scene.from_json(scene_json)
    found: dict[str, tuple[tuple[int, int, bool], ...]] = {}
    groups: dict[tuple[int, ...], int] = {}
    for text, groundings in grounded_captions(scene):
        named: dict[int, tuple[int, ...]] = {}
        for start, end, member in groundings:
            named |= {word: (*named.get(word, ()), member) for word in range(start, end)}
        last = {end - 1 for _, end, _ in groundings}
        found[_plain(text)] = tuple(
            (word, groups.setdefault(members, len(groups)), word in last) for word, members in named.items()
        )
    cells = []
    for members in groups:
        objects = [scene.objects[member] for member in members]
        cells.append(torch.stack([cells_on(objects, grid, 1.0), cells_on(objects, grid, 0.0)]))
    return found, torch.stack(cells)


def cells_on(objects: Sequence[SceneObject], grid: Grid, tolerance: float) -> Tensor:
    """Marks the cells whose centre lies in the box of an object.

    Args:
        objects: objects of one scene.
        grid: rows and columns.
        tolerance: cells' sides by which a box grows in every direction.

    Returns:
        `(R,)`, bool. Without tolerance a small box may hold no centre; then the cell that holds the object's centre is
        marked.
    """
    rows, columns = grid
    high, wide = CANVAS / rows, CANVAS / columns
    y = (torch.arange(rows) + 0.5) * high
    x = (torch.arange(columns) + 0.5) * wide
    marked = torch.zeros(rows, columns, dtype=torch.bool)
    for item in objects:
        down = (y - item.y).abs() <= item.radius + tolerance * high
        across = (x - item.x).abs() <= item.radius + tolerance * wide
        marked |= down.unsqueeze(1) & across.unsqueeze(0)
        marked[min(int(item.y / high), rows - 1), min(int(item.x / wide), columns - 1)] = True
    return marked.flatten()
