"""When one thing is left of, right of, above or below another in a scene: one rule for grammar and truth check."""

from collections.abc import Sequence
from typing import Literal

from datamodules.scenes.generator import Scene

Relation = Literal["left", "right", "above", "below"]

RELATIONS: tuple[Relation, ...] = ("left", "right", "above", "below")
OPPOSITE: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}
MARGIN = 42
"""Least distance of two centres along an axis for a relation to hold, scene units: centres in neighbouring rows or
columns of cells are at least 57 apart, those in the same one at most 28."""


def relation_holds(scene: Scene, subject: Sequence[int], relation: Relation, reference: Sequence[int]) -> bool:
    """Tells whether every subject stands so to every reference.

    Args:
        scene: the scene.
        subject: indices of objects; none make the relation false.
        relation: what the subjects are to the references.
        reference: indices of objects; none make the relation false.
    """
    if not subject or not reference:
        return False
    if relation in ("right", "below"):
        subject, reference, relation = reference, subject, OPPOSITE[relation]
    if relation == "left":
        return max(scene.objects[i].x for i in subject) + MARGIN <= min(scene.objects[i].x for i in reference)
    return max(scene.objects[i].y for i in subject) + MARGIN <= min(scene.objects[i].y for i in reference)
