"""Beam search over a captioner's step function.

Letters: B images, K captions of each image, V vocabulary, W beams in use, C candidates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from networks.generation.protocol import TokenModel
from networks.generation.scores import cropped, rows_of, take, token_scores
from networks.generation.settings import DecodingSettings, Hypotheses
from networks.layers.sequences import Memory, State, select_rows


@dataclass(kw_only=True)
class _Beams:
    """Captions of the images still being searched, `(B, W)` running and `(B, beams)` finished ones.

    Attributes:
        tokens: running captions, `(B, W, max_tokens)`.
        scores: their log-probabilities, `(B, W)`; minus infinity for dead ones.
        done_tokens: finished captions, best first, `(B, beams, max_tokens)`.
        done_scores: their ranking scores, `(B, beams)`; minus infinity where there is none.
        done_log_prob: their log-probabilities, `(B, beams)`.
        done_lengths: their lengths, `(B, beams)`.
    """

    tokens: Tensor
    scores: Tensor
    done_tokens: Tensor
    done_scores: Tensor
    done_log_prob: Tensor
    done_lengths: Tensor

    @staticmethod
    def start(images: int, settings: DecodingSettings, pad_id: int, device: torch.device) -> "_Beams":
        """One empty running caption for each image, none finished."""
        shape = (images, settings.beams)
        return _Beams(
            tokens=torch.full((images, 1, settings.max_tokens), pad_id, device=device),
            scores=torch.zeros(images, 1, device=device),
            done_tokens=torch.full((*shape, settings.max_tokens), pad_id, device=device),
            done_scores=torch.full(shape, -torch.inf, device=device),
            done_log_prob=torch.full(shape, -torch.inf, device=device),
            done_lengths=torch.zeros(shape, dtype=torch.long, device=device),
        )

    def select_images(self, index: Tensor) -> "_Beams":
        """The same for some of the images."""
        return _Beams(**{name: tensor[index] for name, tensor in vars(self).items()})

    def finish(self, candidates: "_Candidates", ended: Tensor, length: int, settings: DecodingSettings) -> None:
        """Merges candidates that end at this length into the finished captions, in place.

        Args:
            candidates: the best continuations, sorted, `(B, C)`.
            ended: which of them end, `(B, C)`, bool.
            length: tokens of each, EOS included.
            settings: the search.
        """
        ended = ended[:, : settings.beams] & candidates.log_prob[:, : settings.beams].isfinite()
        log_prob = candidates.log_prob[:, : settings.beams].where(ended, -torch.inf)
        scores = torch.cat([self.done_scores, log_prob / length**settings.length_penalty], dim=1)
        self.done_scores, index = scores.topk(settings.beams, dim=1)
        tokens = torch.cat([self.done_tokens, candidates.tokens[:, : settings.beams]], dim=1)
        self.done_tokens = take(tokens, index)
        self.done_log_prob = torch.cat([self.done_log_prob, log_prob], dim=1).gather(1, index)
        self.done_lengths = torch.cat([self.done_lengths, ended * length], dim=1).gather(1, index)

    def settled(self, length: int, settings: DecodingSettings) -> Tensor:
        """Tells which images need no further step, `(B,)`, bool."""
        worst_done = self.done_scores[:, -1]
        hopeless: Tensor = self.scores.amax(dim=1) / length**settings.length_penalty <= worst_done
        if settings.early_stopping:
            return hopeless | worst_done.isfinite()
        return hopeless


@dataclass(kw_only=True)
class _Candidates:
    """The best continuations of each image by one token, best first, `(B, C)`.

    Attributes:
        tokens: captions with the new token, `(B, C, max_tokens)`.
        log_prob: their log-probabilities, `(B, C)`.
        parent: the beam each continues, `(B, C)`, long.
        last: the new token, `(B, C)`, long.
    """

    tokens: Tensor
    log_prob: Tensor
    parent: Tensor
    last: Tensor


def beam_search(captioner: TokenModel, memory: Memory, settings: DecodingSettings) -> Hypotheses:
    """Beam search of any width, one included; arguments and result as for `decode`."""
    images, device = rows_of(memory)
    found = _Beams.start(images, settings, captioner.pad_id, device)
    active, beams = torch.arange(images, device=device), found
    state: State | None = None
    token, rows = torch.full((images,), captioner.bos_id, device=device), memory
    for step in range(settings.max_tokens):
        logits, state = captioner.step(rows, token, state)
        candidates = _continuations(captioner, logits, beams, step, settings)
        if step + 1 == settings.max_tokens:
            beams.finish(candidates, torch.ones_like(candidates.last, dtype=torch.bool), step + 1, settings)
            _store(found, active, beams, torch.ones_like(active, dtype=torch.bool))
            break
        ended = candidates.last == captioner.eos_id
        beams.finish(candidates, ended, step + 1, settings)
        width = beams.scores.shape[1]
        beams.scores, chosen = candidates.log_prob.masked_fill(ended, -torch.inf).topk(
            min(settings.beams, candidates.last.shape[1]), dim=1
        )
        beams.tokens = take(candidates.tokens, chosen)
        settled = beams.settled(step + 1, settings)
        _store(found, active, beams, settled)
        going = (~settled).nonzero().squeeze(1)
        active = active[going]
        if len(active) == 0:
            break
        parent = (candidates.parent.gather(1, chosen)[going] + going.unsqueeze(1) * width).flatten()
        token = candidates.last.gather(1, chosen)[going].flatten()
        state = select_rows(state, parent)
        # memory is the same for all beams of an image, so it changes only with the images and the width
        if len(going) < len(settled) or beams.scores.shape[1] != width:
            beams = beams.select_images(going)
            rows = select_rows(memory, active.repeat_interleave(beams.scores.shape[1]))
    kept = slice(settings.num_captions)
    missing = found.done_log_prob.isneginf().unsqueeze(2)
    tokens = found.done_tokens.masked_fill(missing, captioner.pad_id)
    return cropped(tokens[:, kept], found.done_log_prob[:, kept], found.done_lengths[:, kept])


def _store(found: _Beams, active: Tensor, beams: _Beams, which: Tensor) -> None:
    """Copies the finished captions of some of the active images to their places in the result."""
    for name in ("done_tokens", "done_log_prob", "done_lengths"):
        getattr(found, name)[active[which]] = getattr(beams, name)[which]


def _continuations(
    captioner: TokenModel, logits: Tensor, beams: _Beams, step: int, settings: DecodingSettings
) -> _Candidates:
    """The 2 x beams best continuations, so that `beams` are left even if `beams` of them end."""
    images = len(beams.scores)
    history = beams.tokens[:, :, :step].flatten(0, 1)
    scores = token_scores(captioner, logits, history, settings.no_repeat_ngram_size)
    scores += beams.scores.view(-1, 1)
    log_prob, index = _top(scores.view(images, -1), 2 * settings.beams)
    vocabulary = logits.shape[1]
    parent, last = index // vocabulary, index % vocabulary
    tokens = take(beams.tokens, parent)
    tokens[:, :, step] = last
    return _Candidates(tokens=tokens, log_prob=log_prob, parent=parent, last=last)


def _top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Exact, sorted top-k of long rows `(B, S)`: values and indices, `(B, min(count, S))`.

    Long rows are split into groups first: the `count` largest values lie in the `count` groups with the largest
    maxima, so only these are searched, and the full row is read once.
    """
    size = 64
    groups, rest = divmod(scores.shape[1], size)
    if groups < 4 * count:
        return scores.topk(min(count, scores.shape[1]), dim=1)
    cut = scores.shape[1] - rest
    grouped = scores[:, :cut].reshape(len(scores), groups, size)
    best = grouped.amax(dim=2).topk(count, dim=1, sorted=False).indices
    index = (best.unsqueeze(2) * size + torch.arange(size, device=scores.device)).flatten(1)
    tail = torch.arange(cut, scores.shape[1], device=scores.device).expand(len(scores), -1)
    index = torch.cat([index, tail], dim=1)
    values, place = scores.gather(1, index).topk(count, dim=1)
    return values, index.gather(1, place)
