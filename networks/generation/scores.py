"""What greedy decoding, sampling and beam search have in common.

Letters: B images, K captions of each image, L tokens of the longest caption, V vocabulary, W beams, N rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from networks.generation.protocol import TokenModel
from networks.generation.settings import Hypotheses
from networks.layers.sequences import Memory


def token_scores(captioner: TokenModel, logits: Tensor, history: Tensor, ngram_size: int) -> Tensor:
    """Log-probabilities of the next token `(N, V)`, minus infinity for those that may not follow.

    Args:
        captioner: its BOS, PAD and unknown-word token are excluded.
        logits: `(N, V)`.
        history: the tokens so far, without BOS, `(N, t)`.
        ngram_size: n-grams of this size may not occur twice; 0 allows everything.
    """
    scores = F.log_softmax(logits.float(), dim=1)
    for token in (captioner.bos_id, captioner.pad_id, captioner.unk_id):  # a list as index would be sent to the device
        if token is not None:
            scores[:, token] = -torch.inf
    length = history.shape[1]
    if ngram_size and length >= ngram_size:
        windows = history.unfold(1, ngram_size, 1)  # (N, t - n + 1, n)
        ending = history[:, length - ngram_size + 1 :].unsqueeze(1)  # (N, 1, n - 1)
        repeats = (windows[:, :, :-1] == ending).all(dim=2)
        # a token may follow a matching and another window at once: the smaller value wins
        ban = torch.full_like(repeats, torch.inf, dtype=scores.dtype).masked_fill(repeats, -torch.inf)
        scores.scatter_reduce_(1, windows[:, :, -1], ban, reduce="amin")
    return scores


def take(tensor: Tensor, index: Tensor) -> Tensor:
    """Picks `(B, K)` of `(B, W, ...)` along the second dimension."""
    return tensor[torch.arange(len(index), device=index.device).unsqueeze(1), index]


def rows_of(memory: Memory) -> tuple[int, torch.device]:
    """Number of rows of a memory and its device."""
    tensor = next(iter(memory.values()))
    return tensor.shape[0], tensor.device


def cropped(tokens: Tensor, log_prob: Tensor, lengths: Tensor) -> Hypotheses:
    """The result without the columns that are padding only (one column stays even if all captions are missing)."""
    longest = max(int(lengths.max()), 1) if lengths.numel() else 1
    return Hypotheses(token_ids=tokens[:, :, :longest], log_prob=log_prob, lengths=lengths)
