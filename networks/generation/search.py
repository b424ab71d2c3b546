"""Generation with a captioner's step function: greedy decoding, beam search and nucleus sampling.

Everything is written once over `TokenModel.step` and works for recurrent and Transformer captioners alike. All images
of a batch are decoded together, an image is encoded once, the state (recurrent state, key-value cache) is carried from
token to token, and finished images leave the batch.

Letters: B images, K captions of each image, L tokens of the longest caption, V vocabulary, W beams in use,
N rows being decoded (images, or images times samples).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import UserError
from networks.generation.consensus import consensus_order
from networks.generation.protocol import TokenModel
from networks.layers.sequences import Memory, State, select_rows


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


@torch.no_grad()
def decode(
    captioner: TokenModel, memory: Memory, settings: DecodingSettings, generator: torch.Generator | None = None
) -> Hypotheses:
    """Writes captions for encoded images.

    Greedy and beam search give the tokens of Hugging Face ``generate`` with ``do_sample=False``, the same
    ``num_beams``, ``length_penalty``, ``no_repeat_ngram_size``, ``early_stopping`` (True or False),
    ``max_new_tokens=max_tokens`` and ``suppress_tokens=[bos, pad]``; sampling has its ``temperature`` and ``top_p``
    (``top_k=0``), in this order. In particular: of the 2 x `beams` best continuations only those among the first
    `beams` may finish; running captions are cut, not dropped, at `max_tokens`; the log-probabilities are those of the
    full softmax, before BOS, PAD and repeated n-grams are excluded. One difference: when an image has fewer live beams
    than `beams` (a tiny vocabulary), Hugging Face fills up with copies and counts them as finished; we do not.

    BOS and PAD are never produced.

    Args:
        captioner: the network, in evaluation mode.
        memory: what its `encode` returned, B rows.
        settings: the search.
        generator: source of randomness for sampling, on any device; torch's own if None.

    Returns:
        `settings.num_captions` captions for each image: beam search ranks them by score or agreement, sampling
        by log-probability.
    """
    if settings.beams > 1 and settings.mbr_reranking:
        found = beam_search(captioner, memory, replace(settings, num_captions=settings.beams))
        retrieved = captioner.retrieve(memory, settings.retrieval_images) if settings.retrieval_images else None
        weight = settings.retrieval_weight if retrieved is not None else 0.0
        order = consensus_order(found.token_ids, found.log_prob, found.lengths, captioner.eos_id, retrieved, weight)
        order = order[:, : settings.num_captions]
        return _cropped(*(_take(tensor, order) for tensor in (found.token_ids, found.log_prob, found.lengths)))
    if settings.beams > 1:
        return beam_search(captioner, memory, settings)
    return _decode_rows(captioner, memory, settings, generator)


def _decode_rows(
    captioner: TokenModel, memory: Memory, settings: DecodingSettings, generator: torch.Generator | None
) -> Hypotheses:
    """Greedy decoding or sampling: rows are independent, and a finished row leaves the batch."""
    images, device = _rows_of(memory)
    copies = settings.num_captions
    rows = torch.arange(images, device=device).repeat_interleave(copies)
    tokens = torch.full((images * copies, settings.max_tokens), captioner.pad_id, device=device)
    log_prob = torch.zeros(images * copies, device=device)
    lengths = torch.zeros(images * copies, dtype=torch.long, device=device)
    # the copies of an image share its first step
    logits, state = captioner.step(memory, torch.full((images,), captioner.bos_id, device=device), None)
    if copies > 1:
        logits, state, memory = logits.index_select(0, rows), select_rows(state, rows), select_rows(memory, rows)
    active = torch.arange(images * copies, device=device)
    for step in range(settings.max_tokens):
        scores = _token_scores(captioner, logits, tokens[active, :step], settings.no_repeat_ngram_size)
        token = _draw(scores, settings, generator) if settings.sample else scores.argmax(dim=1)
        tokens[active, step] = token
        log_prob[active] += scores.gather(1, token.unsqueeze(1)).squeeze(1)
        lengths[active] = step + 1
        going = (token != captioner.eos_id).nonzero().squeeze(1)
        if step + 1 == settings.max_tokens or len(going) == 0:
            break
        if len(going) < len(active):
            active, token = active[going], token[going]
            memory, state = select_rows(memory, going), select_rows(state, going)
        logits, state = captioner.step(memory, token, state)
    log_prob, order = log_prob.view(images, copies).sort(dim=1, descending=True, stable=True)
    tokens = _take(tokens.view(images, copies, -1), order)
    return _cropped(tokens, log_prob, _take(lengths.view(images, copies), order))


def _draw(scores: Tensor, settings: DecodingSettings, generator: torch.Generator | None) -> Tensor:
    """Draws one token for each row of log-probabilities `(N, V)`, which need not sum to one: `(N,)`."""
    probabilities = F.softmax(scores / settings.temperature, dim=1)
    order = None
    if settings.top_p < 1:
        probabilities, order = probabilities.sort(dim=1, descending=True)
        before = probabilities.cumsum(dim=1) - probabilities
        # the most probable token always stays (set explicitly, because the subtraction may round)
        before[:, 0] = 0
        probabilities = probabilities.where(before < settings.top_p, 0)
    cumulative = probabilities.cumsum(dim=1)
    total = cumulative[:, -1:]
    # One uniform number per row, drawn on the generator's device, so that a seed means the same everywhere
    source = generator.device if generator is not None else torch.device("cpu")
    uniform = torch.rand(len(scores), 1, generator=generator, device=source).to(scores.device)
    # below the total even after rounding, so that the token drawn has a probability above zero
    threshold = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, threshold, right=True)
    return (drawn if order is None else order.gather(1, drawn)).squeeze(1)


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
        self.done_tokens = _take(tokens, index)
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
    images, device = _rows_of(memory)
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
        beams.tokens = _take(candidates.tokens, chosen)
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
    return _cropped(tokens[:, kept], found.done_log_prob[:, kept], found.done_lengths[:, kept])


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
    scores = _token_scores(captioner, logits, history, settings.no_repeat_ngram_size)
    scores += beams.scores.view(-1, 1)
    log_prob, index = _top(scores.view(images, -1), 2 * settings.beams)
    vocabulary = logits.shape[1]
    parent, last = index // vocabulary, index % vocabulary
    tokens = _take(beams.tokens, parent)
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


def _token_scores(captioner: TokenModel, logits: Tensor, history: Tensor, ngram_size: int) -> Tensor:
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


def _take(tensor: Tensor, index: Tensor) -> Tensor:
    """Picks `(B, K)` of `(B, W, ...)` along the second dimension."""
    return tensor[torch.arange(len(index), device=index.device).unsqueeze(1), index]


def _rows_of(memory: Memory) -> tuple[int, torch.device]:
    """Number of rows of a memory and its device."""
    tensor = next(iter(memory.values()))
    return tensor.shape[0], tensor.device


def _cropped(tokens: Tensor, log_prob: Tensor, lengths: Tensor) -> Hypotheses:
    """The result without the columns that are padding only (one column stays even if all captions are missing)."""
    longest = max(int(lengths.max()), 1) if lengths.numel() else 1
    return Hypotheses(token_ids=tokens[:, :, :longest], log_prob=log_prob, lengths=lengths)
