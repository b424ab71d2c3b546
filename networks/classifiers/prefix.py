"""A classifier of the label that a caption will have, from any beginning of it: a GRU that reads word by word.

It guides decoding as a future discriminator (Yang and Klein 2021, "FUDGE: controlled text generation with future
discriminators"), see `networks.generation.control`.

Letters: B rows, K next words of a row, N captions, T tokens of the longest one, M beginnings, V vocabulary, W word
width, H width of the recurrent state, C labels.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from networks.classifiers.base import Classifier, LabelOutput
from networks.layers.checkpointing import Runner
from networks.layers.recurrent import run_layers
from networks.layers.sequences import targets_of, true_places


class PrefixClassifier(nn.Module):
    """Scores every label after every word of a caption; BOS is not read, EOS is.

    Args:
        num_labels: C.
        vocab_size: V.
        word_dim: W.
        hidden_dim: H.
        dropout: dropout probability of words and before the last layer.
        gradient_checkpointing: recompute everything in the backward pass instead of keeping activations.
    """

    def __init__(
        self,
        *,
        num_labels: int,
        vocab_size: int,
        word_dim: int = 100,
        hidden_dim: int = 128,
        dropout: float = 0.3,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.words = nn.Embedding(vocab_size, word_dim)
        self.rnn = nn.GRU(word_dim, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, num_labels)
        self.dropout = nn.Dropout(dropout)
        self._run = Runner(gradient_checkpointing)

    # captions

    def forward(self, caption_ids: Tensor, caption_lengths: Tensor) -> Tensor:
        """Scores every beginning of captions, from the first word to EOS.

        Args:
            caption_ids: `(N, T)`, long, each BOS .. EOS and then filling.
            caption_lengths: tokens with BOS and EOS, `(N,)`.

        Returns:
            Logits `(M, C)` in row-major order of the captions, M as in `networks.layers.sequences.targets_of`.
        """
        count = len(targets_of(caption_ids, caption_lengths))
        if not count:
            return self.head.weight.new_zeros(0, self.num_labels)
        scores: Tensor = self._run(self._scores, caption_ids[:, 1:])
        real = torch.arange(scores.shape[1], device=scores.device) < (caption_lengths - 1).unsqueeze(1)
        return scores.flatten(0, 1).index_select(0, true_places(real, count))

    def whole(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities of the labels of whole captions.

        Args:
            tokens: without BOS, `(N, T)`, then filling.
            lengths: length of each caption, `(N,)`; 0 where there is no caption, whose labels are all as likely.

        Returns:
            `(N, C)`, float32.
        """
        scores = self._scores(tokens)
        last = scores[torch.arange(len(tokens), device=tokens.device), (lengths - 1).clamp_min(0)]
        return (last * (lengths > 0).unsqueeze(1)).float().log_softmax(dim=1)

    def _scores(self, tokens: Tensor) -> Tensor:
        """Scores after each token, `(N, T)` to `(N, T, C)`; what stands behind a token does not matter."""
        outputs, _ = run_layers(self.rnn, self.dropout(self.words(tokens)))
        assert isinstance(outputs, Tensor)
        scores: Tensor = self.head(self.dropout(outputs))
        return scores

    # word by word

    def start(self, rows: int) -> Tensor:
        """The state before the first word, `(rows, H)`."""
        return self.head.weight.new_zeros(rows, self.rnn.hidden_size)

    def read(self, hidden: Tensor, token: Tensor) -> Tensor:
        """States after one more word, `(B,)` to `(B, H)`, or after each of several words, `(B, K)` to `(B, K, H)`.

        The same numbers as `forward`; the state's share of the gates is computed once for all words of a row.

        Args:
            hidden: state of each row, `(B, H)`.
            token: next words.
        """
        from_word, from_state, word_bias, state_bias = cast(list[Tensor], self.rnn.all_weights[0])
        own, before = F.linear(self.words(token), from_word, word_bias), F.linear(hidden, from_state, state_bias)
        if token.dim() == 2:
            hidden, before = hidden.unsqueeze(1), before.unsqueeze(1)
        reset, keep, new = own.chunk(3, dim=-1)
        past_reset, past_keep, past_new = before.chunk(3, dim=-1)
        fresh = (new + (reset + past_reset).sigmoid() * past_new).tanh()
        return torch.lerp(fresh, hidden, (keep + past_keep).sigmoid())

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of the labels in some states, `(..., H)` to `(..., C)`, float32."""
        scores: Tensor = self.head(hidden)
        return scores.float().log_softmax(dim=-1)


class CaptionLabels(Classifier):
    """What a classifier of beginnings says of whole captions; labels exclude each other.

    Args:
        prefixes: the classifier.
    """

    def __init__(self, prefixes: PrefixClassifier) -> None:
        super().__init__()
        self.prefixes, self.num_labels = prefixes, prefixes.num_labels

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores captions; the sigmoid of a score is the probability, so that those of a caption sum to 1."""
        probabilities = self.prefixes.whole(batch["caption_ids"][:, 1:], batch["caption_lengths"] - 1).exp()
        return LabelOutput(logits=torch.logit(probabilities, eps=1e-7), image_index=batch["image_index"])
