"""What captions of scenes can reach: upper bounds that know the scene, and a baseline that sees no image.

* **upper bound**: a captioner that knows the scene and draws a fresh caption from the grammar, scored against the five
  references. Its fact F1 is 1; its n-gram scores are what the grammar's randomness leaves.
* **modal-template oracle**: the same knowledge, but of 12 fresh captions the one most like the other 11 is kept. A
  model that decodes greedily prefers frequent wordings too and so can exceed the upper bound; this row says how far.
* **language-only baseline**: for each metric, the one fixed caption that is best on training scenes (the most frequent
  training caption is among the candidates), given to every scene of the split.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from datamodules.scenes.facts import caption_fact_f1
from datamodules.scenes.generator import Scene
from datamodules.scenes.grammar import fresh_caption
from metrics.baselines.rows import LANGUAGE_ONLY, MODAL_TEMPLATE, UPPER_BOUND
from metrics.captions import SCORES, ImageScores, References
from metrics.names import metric
from metrics.ngrams import different_ngrams

Speak = Callable[[Scene, int], str]
"""Writes a caption of a scene as another speaker of its grammar would; another number is another speaker."""

_SPEAKERS = 12
_CANDIDATES = 24
_TRAIN_SCENES = 200


def scene_scores(captions: Sequence[str], scenes: Mapping[str, Scene], references: References) -> dict[str, float]:
    """Scores one caption per scene.

    Args:
        captions: one caption per scene, in the order of `scenes`.
        scenes: the scenes by image id.
        references: their captions, with the same ids.

    Returns:
        "bleu1" .. "bleu4", "rouge_l", "cider_d" and "fact_f1".
    """
    scored: ImageScores = references.score(dict(zip(scenes, captions, strict=True)))
    facts = [caption_fact_f1(caption, scene) for caption, scene in zip(captions, scenes.values(), strict=True)]
    return {**scored.corpus(), "fact_f1": float(np.mean(facts))}


def typical_caption(scene: Scene, speak: Speak = fresh_caption) -> str:
    """Returns, of several fresh captions, the one that shares most n-grams with the others."""
    captions = [speak(scene, speaker) for speaker in range(1, _SPEAKERS + 1)]
    grams = [set().union(*different_ngrams(text.split())) for text in captions]
    everyone = Counter(gram for found in grams for gram in found)
    # divided by the root of the number: a mean favours short captions, a sum long ones
    scores = [sum(everyone[gram] for gram in found) / len(found) ** 0.5 for found in grams]
    return captions[int(np.argmax(scores))]


def language_only_captions(train_scenes: Sequence[Scene], train_captions: Sequence[Sequence[str]]) -> dict[str, str]:
    """Finds, for each metric, the fixed caption that scores best on training scenes.

    Args:
        train_scenes: training scenes; the first 200 are scored.
        train_captions: their captions.

    Returns:
        Metric to caption.
    """
    scenes = {str(index): scene for index, scene in enumerate(train_scenes[:_TRAIN_SCENES])}
    references = References({key: list(train_captions[int(key)]) for key in scenes})
    table = {
        caption: scene_scores([caption] * len(scenes), scenes, references)
        for caption in _likely_captions(train_captions)
    }
    names = [name for name in (*SCORES, "fact_f1") if metric(name).direction == "max"]
    return {name: max(table, key=lambda text: table[text][name]) for name in names}


def _likely_captions(captions: Sequence[Sequence[str]]) -> list[str]:
    """Chooses candidates: the most frequent caption and those whose n-grams are most frequent, of many lengths."""
    counts = Counter(text for texts in captions for text in texts)
    grams = {text: different_ngrams(text.split()) for text in counts}
    frequency = Counter(gram for orders in grams.values() for order in orders for gram in order)
    scores = {
        text: math.fsum(math.log(sum(map(frequency.__getitem__, order)) / len(order)) for order in orders) / len(orders)
        for text, orders in grams.items()
    }
    best: dict[int, list[str]] = {}
    for text in sorted(scores, key=lambda text: (-scores[text], text)):
        best.setdefault(len(text.split()) // 3, []).append(text)
    per_length = max(_CANDIDATES // len(best), 1)
    return [counts.most_common(1)[0][0], *(text for texts in best.values() for text in texts[:per_length])]


def scene_baselines(
    scenes: Mapping[str, Scene],
    references: Mapping[str, Sequence[str]],
    fixed: Mapping[str, str],
    speak: Speak = fresh_caption,
) -> dict[str, dict[str, float]]:
    """Computes the rows that a captioner's scores on these scenes must be read against.

    Args:
        scenes: the scenes by image id.
        references: the captions of each.
        fixed: metric to the fixed caption of the language-only baseline, from `language_only_captions`.
        speak: writes fresh captions.

    Returns:
        Row name to "bleu1" .. "bleu4", "rouge_l", "cider_d" and "fact_f1".
    """
    prepared = References(references)
    rows = {
        UPPER_BOUND: [speak(scene, 0) for scene in scenes.values()],
        MODAL_TEMPLATE: [typical_caption(scene, speak) for scene in scenes.values()],
    }
    scored = {name: scene_scores(captions, scenes, prepared) for name, captions in rows.items()}
    by_text = {text: scene_scores([text] * len(scenes), scenes, prepared) for text in set(fixed.values())}
    scored[LANGUAGE_ONLY] = {name: by_text[text][name] for name, text in fixed.items()}
    return scored
