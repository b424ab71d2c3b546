"""Emotions that people would report on a scene, drawn from a distribution that is known.

**The rule.** Every emotion has a score, the sum of

* `_COLOUR_EFFECT`, averaged over the objects, each weighing as much as its area (3 for large, 1 for small);
* `_SHAPE_EFFECT`, averaged in the same way;
* `_CROWD_EFFECT` times (objects - 3), so that full images excite and empty ones calm;
* `_LARGE_EFFECT` times the share of large objects.

The probabilities are the softmax of the scores. Several annotators look at the same image independently; what each
reports is one draw. So the best possible prediction, its likelihood and its accuracy are known exactly.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.scenes.draws import Draws
from datamodules.scenes.generator import Scene

EMOTION_NAMES = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")

_COLOUR_EFFECT = {
    "red": (0.0, 0.0, 0.0, 2.0, 3.0, 0.0, 1.0, 0.0),
    "green": (0.0, 0.0, 3.0, 0.0, 0.0, 2.0, 0.0, 0.0),
    "blue": (0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0),
    "yellow": (3.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 0.0),
    "purple": (0.0, 3.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0),
    "white": (0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0),
}
_SHAPE_EFFECT = {
    "circle": (1.5, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, 0.0),
    "square": (0.0, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 1.5),
    "triangle": (0.0, 1.0, 0.0, 1.0, 1.5, 0.0, 0.0, 0.0),
    "cross": (0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 2.0, 0.5),
}
_CROWD_EFFECT = (0.4, 0.0, -0.4, 0.5, 0.0, 0.0, 0.0, -0.4)
_LARGE_EFFECT = (0.0, 1.5, 0.0, 0.0, 0.5, 0.0, 1.0, -0.5)
_AREA = {"small": 1.0, "large": 3.0}


def emotion_probabilities(scene: Scene) -> NDArray[np.float64]:
    """Returns the probability of each emotion, `(8,)`, in the order of `EMOTION_NAMES`; they sum to 1."""
    areas = np.array([_AREA[item.size] for item in scene.objects])
    colours = np.array([_COLOUR_EFFECT[item.colour] for item in scene.objects])
    shapes = np.array([_SHAPE_EFFECT[item.shape] for item in scene.objects])
    scores = (areas / areas.sum()) @ (colours + shapes)
    scores = scores + (len(scene.objects) - 3) * np.array(_CROWD_EFFECT)
    scores += np.mean([item.size == "large" for item in scene.objects]) * np.array(_LARGE_EFFECT)
    weights = np.exp(scores - scores.max())
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def sample_emotions(scene: Scene, annotators: int = 5) -> tuple[int, ...]:
    """Draws what annotators report, each one emotion.

    Args:
        scene: what they look at; the draws are a function of it.
        annotators: number of people. The first ones report the same however many follow.

    Returns:
        One index into `EMOTION_NAMES` per annotator.
    """
    draws = Draws(scene.digest(), 3)
    limits = np.cumsum(emotion_probabilities(scene))
    # the last limit may fall short of 1 by rounding
    return tuple(min(int(np.searchsorted(limits, draws.unit(), "right")), 7) for _ in range(annotators))


def emotion_labels(scene: Scene, annotators: int = 5) -> tuple[float, ...]:
    """Returns 1.0 for every emotion that at least one annotator reports, in the order of `EMOTION_NAMES`."""
    reported = set(sample_emotions(scene, annotators))
    return tuple(1.0 if index in reported else 0.0 for index in range(len(EMOTION_NAMES)))
