"""An n-gram language model of captions: what can be written without seeing an image."""

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from core.errors import UserError

END = "</s>"
"""The token behind the last word."""
LONGEST = 40
"""Words of the longest caption that is written."""

_START = "<s>"
_DISCOUNT = 0.75


class NGramModel:
    """An n-gram language model with interpolated absolute discounting.

    The probability of a word after a history h is (count - d) / total(h) plus d * kinds(h) / total(h) times its
    probability after the history without its first word; single words are not discounted.

    Args:
        sentences: tokens of the captions.
        order: longest n-gram.
    """

    start = _START

    def __init__(self, sentences: Iterable[Sequence[str]], order: int) -> None:
        self.order = order
        self.followers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for sentence in sentences:
            words = [*sentence, END]
            for place, word in enumerate(words):
                for length in range(order):
                    # the beginning is a word too, once, so that a caption's first words are known as such
                    history = (_START, *words[:place])[-length:] if length else ()
                    if len(history) == length:
                        self.followers[history][word] += 1
        if not self.followers:
            raise UserError("baselines: there is no training caption")
        self.totals = {history: counts.total() for history, counts in self.followers.items()}

    def probability(self, word: str, history: tuple[str, ...]) -> float:
        """Probability of a word after a history, which may be longer than needed."""
        history = self._seen(history)
        counts, total = self.followers[history], self.totals[history]
        if not history:
            return counts[word] / total
        rest = _DISCOUNT * len(counts) / total
        return max(counts[word] - _DISCOUNT, 0) / total + rest * self.probability(word, history[1:])

    def sample(self, draws: random.Random) -> list[str]:
        """Draws a caption."""
        words: list[str] = []
        while len(words) < LONGEST:
            history = self._seen((_START, *words))
            # with the mass that discounting set free, the shorter history is asked
            while history and draws.random() * self.totals[history] < _DISCOUNT * len(self.followers[history]):
                history = history[1:]
            counts = self.followers[history]
            word = draw_word({w: n - (_DISCOUNT if history else 0) for w, n in counts.items()}, draws)
            if word == END:
                break
            words.append(word)
        return words

    def search(self, beams: int) -> list[str]:
        """Beam search for the caption with the highest mean log-probability per word, the end counted.

        Words that never followed the longest known part of a hypothesis are not tried.
        """
        alive: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
        finished: list[tuple[float, tuple[str, ...]]] = []
        for length in range(1, LONGEST + 1):
            grown = []
            for score, words in alive:
                history = (_START, *words)
                for word in self.followers[self._seen(history)]:
                    after = score + math.log(self.probability(word, history))
                    if word == END:
                        finished.append((after / length, words))
                    else:
                        grown.append((after, (*words, word)))
            alive = heapq.nlargest(beams, grown)
        return list(max(finished, default=(0.0, alive[0][1] if alive else ()))[1])

    def _seen(self, history: tuple[str, ...]) -> tuple[str, ...]:
        """The longest end of a history that occurred in training."""
        history = history[len(history) - min(len(history), self.order - 1) :]
        while history not in self.followers:
            history = history[1:]
        return history


def draw_word(weights: Mapping[str, float], draws: random.Random) -> str:
    """Draws a word in proportion to its weight."""
    return draws.choices(list(weights), list(weights.values()))[0]
