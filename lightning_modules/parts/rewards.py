"""The reward of a caption: how well it does on the metrics that it is judged by.

Letters: N captions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.scenes.facts import caption_fact_f1
from datamodules.scenes.generator import Scene
from metrics.captions import ImageScores, References
from metrics.tokenize import tokenize_caption

_END = "</s>"
"""Stands behind a caption that has come to its end."""


def _tokenize(text: str) -> str:
    ended = text.endswith(_END)
    words = tokenize_caption(text.removesuffix(_END))
    return f"{words} {_END}" if ended else words


class CaptionReward:
    """Scores captions of training images by weighted metrics, each caption by itself.

    The end of a caption counts as a word of the references and of captions that have one. Without it CIDEr-D pays for
    captions that break off ("a dog on a"), the known failure of training on it.

    Args:
        references: image id to its captions; CIDEr-D's document frequencies are those of all of them, counted once.
        scenes: descriptions of the synthetic scenes by image id; needed for `truth` only.
        cider_d: weight of CIDEr-D.
        bleu4: weight of BLEU-4 of the single caption.
        truth: weight of the fact F1 of scenes.
    """

    def __init__(
        self,
        *,
        references: Mapping[str, Sequence[str]],
        scenes: Mapping[str, str],
        cider_d: float = 1.0,
        bleu4: float = 0.0,
        truth: float = 0.0,
    ) -> None:
        ended = {name: [text + _END for text in texts] for name, texts in references.items()}
        self._references = References(ended, tokenize=_tokenize)
        self._weights = {"cider_d": cider_d, "bleu4": bleu4}
        self._truth, self._texts = truth, scenes
        self._scenes: dict[str, Scene] = {}

    def __call__(self, image_ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]) -> NDArray[np.float64]:
        """Rewards, `(N,)`.

        Args:
            image_ids: the image of each caption; may repeat.
            captions: N texts.
            ended: whether each has come to its end, or was cut at the most tokens.
        """
        texts = [text + _END * end for text, end in zip(captions, ended, strict=True)]
        scores = ImageScores(list(image_ids), self._references.rows(image_ids, texts)).table()
        reward = np.zeros(len(captions))
        for name, weight in self._weights.items():
            reward += weight * scores[name]
        if self._truth:
            facts = [caption_fact_f1(text, self._scene(name)) for name, text in zip(image_ids, captions, strict=True)]
            reward += self._truth * np.array(facts)
        return reward

    def _scene(self, image_id: str) -> Scene:
        if image_id not in self._scenes:
            self._scenes[image_id] = Scene.from_json(self._texts[image_id])
        return self._scenes[image_id]
