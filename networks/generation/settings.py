"""How captions are decoded, and what decoding gives.

Letters: B images, K captions of each image, L tokens of the longest caption.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DecodingSettings:
    """How captions are searched for or sampled.

    The semantics are those of Hugging Face ``generate`` (see `decode`).

    Attributes:
        beams: width of the beam search; 1 is greedy decoding.
        num_captions: captions returned for each image; at most `beams`, or any number with `sample`.
        max_tokens: most tokens of a caption, EOS included, BOS not.
        length_penalty: finished captions are ranked by log-probability / length ** length_penalty, where the length
            counts EOS; 0 ranks by log-probability, larger values favour longer captions. Beam search only.
        no_repeat_ngram_size: no caption contains the same n-gram of this many tokens twice; 0 allows everything.
        early_stopping: True ends the search of an image as soon as `beams` captions are finished; False continues while
            the best running one, ranked as if it ended now, beats the worst finished one. Beam search only.
        mbr_reranking: ranks the `beams` captions found by their agreement with each other (minimum Bayes risk), see
            `networks.generation.consensus`. Beam search only.
        retrieval_images: number of similar training images whose captions `mbr_reranking` takes into account; 0:
            none.
        retrieval_weight: weight of the agreement with them, in [0, 1].
        guidance: how strongly a condition counts, see `networks.generation.guidance`: 1 is the conditioned model as it
            is, 0 the model without a condition; >= 0.
        control_strength: weight of the classifier that guides, if there is one, see `networks.generation.control`; 0:
            it does not guide.
        control_rerank: weight of the classifier in the choice among finished captions: those of the beams, or samples;
            0: it does not choose.
        sample: samples tokens instead of searching for the most probable caption.
        top_p: samples come from the smallest set of tokens whose probabilities sum to at least this, in (0, 1].
        temperature: divides the logits before sampling; > 0.
    """

    beams: int = 1
    num_captions: int = 1
    max_tokens: int = 36
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    early_stopping: bool = True
    mbr_reranking: bool = False
    retrieval_images: int = 0
    retrieval_weight: float = 0.7
    guidance: float = 1.0
    control_strength: float = 1.0
    control_rerank: float = 0.0
    sample: bool = False
    top_p: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UserError: a value is out of range, or two values contradict each other.
        """
        for name in ("beams", "num_captions", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is too small; set it to 1 or more")
        if self.no_repeat_ngram_size < 0:
            raise UserError(f"no_repeat_ngram_size={self.no_repeat_ngram_size} is negative; 0 switches it off")
        if self.retrieval_images < 0 or not 0 <= self.retrieval_weight <= 1:
            raise UserError(
                f"retrieval_images={self.retrieval_images}, retrieval_weight={self.retrieval_weight}: expected 0 or "
                "more, and 0 to 1"
            )
        if not 0 <= self.guidance < math.inf:
            raise UserError(f"guidance={self.guidance}: expected 0 (no condition), 1 (as trained) or more")
        self._check_control()
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} is not in (0, 1]; 1 samples from the whole vocabulary")
        if not self.temperature > 0:
            raise UserError(f"temperature={self.temperature} is not positive; set sample to false for greedy decoding")
        if self.sample and self.beams > 1:
            raise UserError(f"sample=true and beams={self.beams} exclude each other; set beams to 1 or sample to false")
        if not self.sample and self.num_captions > self.beams:
            raise UserError(
                f"num_captions={self.num_captions} needs at least as many beams (beams={self.beams}), or sample=true"
            )

    def _check_control(self) -> None:
        """Checks the values of a classifier's control, see `__post_init__`."""
        for name in ("control_strength", "control_rerank"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)}: expected 0 (off) or more")
        if self.control_rerank and self.mbr_reranking:
            raise UserError(
                f"control_rerank={self.control_rerank} and mbr_reranking=true both rank captions: set one of them off"
            )
        if self.control_rerank and self.beams == 1 and not self.sample:
            raise UserError(f"control_rerank={self.control_rerank} with beams=1: there is one caption; set beams to 5")


@dataclass(kw_only=True)
class Hypotheses:
    """Captions of B images, best first.

    Attributes:
        token_ids: tokens without BOS, with EOS, then PAD, `(B, K, L)`, long. A caption cut at `max_tokens` has no EOS.
        log_prob: natural-log sum over the tokens, EOS included, under the model's own distribution (before
            temperature, top_p and excluded tokens), `(B, K)`, float. Minus infinity where there are fewer than K
            possible captions.
        lengths: tokens of each caption, EOS included, `(B, K)`, long; 0 where there is none.
    """

    token_ids: Tensor
    log_prob: Tensor
    lengths: Tensor
