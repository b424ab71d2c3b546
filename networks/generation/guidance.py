"""Classifier-free guidance (Ho and Salimans 2022) of a captioner with a condition.

A captioner that was trained with and without its condition scores each next token twice; the scores without it plus
`strength` times the difference are those that are decoded with. Strength 0 ignores the condition, 1 is the conditioned
model as it is, more exaggerates what the condition changes.

Letters: B rows, V vocabulary.
"""

from torch import Tensor

from networks.generation.protocol import TokenModel
from networks.generation.retrieval import RetrievedCaptions
from networks.layers.conditions import without_condition
from networks.layers.sequences import Memory, State

_WITH, _WITHOUT = "with.", "without."
"""Prefixes of the two states."""


class Guided:
    """A model that scores tokens with and without the condition of its memory.

    Args:
        captioner: the model.
        strength: weight of the difference.
    """

    def __init__(self, captioner: TokenModel, strength: float) -> None:
        self.captioner, self.strength = captioner, strength
        self.bos_id, self.eos_id, self.pad_id = captioner.bos_id, captioner.eos_id, captioner.pad_id
        self.unk_id = captioner.unk_id

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, tokens `(B,)` to `(B, V)`; the state is that of both passes."""
        own, after = self.captioner.step(memory, token, _part(state, _WITH))
        plain, after_plain = self.captioner.step(without_condition(memory), token, _part(state, _WITHOUT))
        # in single precision: with a large strength, half of it would end the range
        scores = plain.float() + self.strength * (own.float() - plain.float())
        both = {_WITH + name: tensor for name, tensor in after.items()}
        return scores, both | {_WITHOUT + name: tensor for name, tensor in after_plain.items()}

    def retrieve(self, memory: Memory, count: int) -> RetrievedCaptions | None:
        """As the model does."""
        return self.captioner.retrieve(memory, count)


def guided(captioner: TokenModel, memory: Memory, strength: float) -> tuple[TokenModel, Memory]:
    """The model and memory to decode with: with a plain model where one pass for each token is enough.

    Args:
        captioner: the model.
        memory: memory of the images, perhaps with a condition.
        strength: strength of the guidance.
    """
    plain = without_condition(memory)
    if strength == 0 or len(plain) == len(memory):
        return captioner, plain
    return (captioner if strength == 1 else Guided(captioner, strength)), memory


def _part(state: State | None, prefix: str) -> State | None:
    if state is None:
        return None
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
