"""A loss on the words of an image's captions, asked of the state that the captioner starts from."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from core.batch import Batch
from lightning_modules.captioning import CaptioningModule
from networks.layers.sequences import CaptionOutput, Memory
from networks.losses.words import word_loss, word_shares

if TYPE_CHECKING:
    CaptioningMixin = CaptioningModule
else:
    CaptioningMixin = object  # see `lightning_modules.parts.mixin`


class BagOfWordsOptions(CaptioningMixin):
    """A captioner whose state before the first word is asked for the words of the captions.

    Args:
        bag_of_words_weight: weight of a loss that asks the state by which similar images are found for the words of the
            image's captions, see `networks.losses.words`; helps where images are few. 0: none.
    """

    def __init__(self, *, bag_of_words_weight: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bag_of_words_weight = bag_of_words_weight

    def add_bag_of_words(self, state_dim: int) -> None:
        """Makes the layer that the loss needs, if the loss is wanted.

        Args:
            state_dim: width of the captioner's `similarity_state`.
        """
        self.words = nn.Linear(state_dim, self.vocab_size) if self.bag_of_words_weight else None

    def training_loss(self, batch: Batch, memory: Memory, output: CaptionOutput) -> Tensor:
        """Cross-entropy and the term on the words."""
        loss = super().training_loss(batch, memory, output)
        if self.words is None:
            return loss
        state = self.captioner.similarity_state(memory)
        assert state is not None, "a method with a bag of words has a state to ask"
        targets = word_shares(batch, len(state), self.words.out_features)
        return loss + self.bag_of_words_weight * word_loss(self.words(state), targets)
