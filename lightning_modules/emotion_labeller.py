"""Emotions of captioned images: teacher and students by one module, since only the network differs."""

from typing import Any, ClassVar

from lightning_modules.classification import ClassificationModule
from lightning_modules.parts.emotion import EmotionOptions
from networks.emotion.transfer import freeze


class EmotionLabeller(EmotionOptions, ClassificationModule):
    """A network for emotions, trained as a whole or at its last layer alone.

    Args:
        head_only: everything but the last layer is frozen (published for the teacher).
    """

    method: ClassVar[str] = "emotion_labeller"

    def __init__(self, *, head_only: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = freeze(self.classifier, None) if head_only else ()
