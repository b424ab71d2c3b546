"""Decoding under a label without training the captioner again: a classifier of captions guides, or chooses.

Guiding (FUDGE, Yang and Klein 2021): by Bayes' rule the next word given a label is as likely as the captioner says,
times the probability of the label after that word, as a classifier of beginnings sees it. The scores of the words that
the captioner finds most probable get `strength` times the log-probability of the label. All others are treated as the
worst of these, so that none of them overtakes one that was judged (published: they are left out).

Choosing: finished captions are ranked by their own score plus a weight times the log-probability of the label.

Letters: B rows, K captions of each, L tokens of the longest, V vocabulary, W words that are judged.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from networks.classifiers.prefix import PrefixClassifier
from networks.generation.protocol import TokenModel
from networks.generation.retrieval import RetrievedCaptions
from networks.generation.scores import cropped, take
from networks.generation.settings import DecodingSettings, Hypotheses
from networks.layers.sequences import Memory, State

_LABEL, _READ = "control.label", "control.read"
"""Entries of memory and state."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """What captions are to say.

    Attributes:
        classifier: which judges their beginnings, in evaluation mode; its tokens are the captioner's.
        labels: labels of each image, `(B,)`, long, -1 for none.
        words: how many of the most probable words it judges at each step.
    """

    classifier: PrefixClassifier
    labels: Tensor
    words: int = 50


class Controlled:
    """A model whose next words are scored by a classifier, too; the memory says under which label.

    Args:
        captioner: the model.
        classifier: of beginnings.
        strength: weight of the classifier.
        words: how many of the most probable words it judges.
    """

    def __init__(self, captioner: TokenModel, classifier: PrefixClassifier, *, strength: float, words: int) -> None:
        self.captioner, self.classifier, self.strength, self.words = captioner, classifier, strength, words
        self.bos_id, self.eos_id, self.pad_id = captioner.bos_id, captioner.eos_id, captioner.pad_id
        self.unk_id = captioner.unk_id

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, tokens `(B,)` to `(B, V)`."""
        labels, own = memory[_LABEL], {name: tensor for name, tensor in memory.items() if name != _LABEL}
        if state is None:
            logits, after = self.captioner.step(own, token, None)
            read = self.classifier.start(len(token))
        else:
            past = {name: tensor for name, tensor in state.items() if name != _READ}
            logits, after = self.captioner.step(own, token, past)
            read = self.classifier.read(state[_READ], token)
        return logits.float() + self.strength * self._gains(logits, read, labels), {**after, _READ: read}

    def _gains(self, logits: Tensor, read: Tensor, labels: Tensor) -> Tensor:
        """What the label's log-probability adds to every word, `(B, V)`: 0 for the best, less for the others."""
        allowed = logits.clone()
        for token in (self.bos_id, self.pad_id, self.unk_id):
            if token is not None:
                allowed[:, token] = -torch.inf
        words = allowed.topk(min(self.words, logits.shape[1]), dim=1).indices
        judged = self.classifier.log_probs(self.classifier.read(read, words))
        place = labels.clamp_min(0).view(-1, 1, 1).expand(-1, words.shape[1], 1)
        gains = judged.gather(2, place).squeeze(2) * (labels >= 0).unsqueeze(1)
        gains = gains - gains.amax(dim=1, keepdim=True)
        return gains.amin(dim=1, keepdim=True).repeat(1, logits.shape[1]).scatter(1, words, gains)

    def retrieve(self, memory: Memory, count: int) -> RetrievedCaptions | None:
        """As the model does."""
        return self.captioner.retrieve(memory, count)


def controlled(
    captioner: TokenModel, memory: Memory, control: Control | None, settings: DecodingSettings
) -> tuple[TokenModel, Memory]:
    """The model and memory to decode with; the plain ones where nothing guides."""
    if control is None or settings.control_strength == 0:
        return captioner, memory
    model = Controlled(captioner, control.classifier, strength=settings.control_strength, words=control.words)
    return model, {**memory, _LABEL: control.labels}


def chosen(found: Hypotheses, control: Control, settings: DecodingSettings) -> Hypotheses:
    """Ranks finished captions anew and keeps `settings.num_captions` of each image."""
    images, count, longest = found.token_ids.shape
    tokens, lengths = found.token_ids.view(-1, longest), found.lengths.flatten()
    labels = control.labels.repeat_interleave(count)
    judged = control.classifier.whole(tokens, lengths).gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1)
    penalty = settings.length_penalty if settings.beams > 1 else 0.0
    scores = found.log_prob / found.lengths.clamp_min(1) ** penalty
    scores = scores + settings.control_rerank * (judged * (labels >= 0)).view(images, count)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, : settings.num_captions]
    return cropped(*(take(tensor, order) for tensor in (found.token_ids, found.log_prob, found.lengths)))
