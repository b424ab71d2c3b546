"""Generation with a captioner's step function: greedy decoding, beam search and nucleus sampling.

Everything is written once over `TokenModel.step` and works for recurrent and Transformer captioners alike. All images
of a batch are decoded together, an image is encoded once, the state (recurrent state, key-value cache) is carried from
token to token, and finished images leave the batch.

Letters: B images, K captions of each image, V vocabulary, N rows being decoded (images, or images times samples).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from networks.generation.beams import beam_search
from networks.generation.consensus import consensus_order
from networks.generation.control import Control, chosen, controlled
from networks.generation.guidance import guided
from networks.generation.protocol import TokenModel
from networks.generation.scores import cropped, rows_of, take, token_scores
from networks.generation.settings import DecodingSettings, Hypotheses
from networks.layers.sequences import Memory, select_rows


@torch.no_grad()
def decode(
    captioner: TokenModel,
    memory: Memory,
    settings: DecodingSettings,
    generator: torch.Generator | None = None,
    control: Control | None = None,
) -> Hypotheses:
    """Writes captions for encoded images.

    Greedy and beam search give the tokens of Hugging Face ``generate`` with ``do_sample=False``, the same
    ``num_beams``, ``length_penalty``, ``no_repeat_ngram_size``, ``early_stopping`` (True or False),
    ``max_new_tokens=max_tokens`` and ``suppress_tokens=[bos, pad]``; sampling has its ``temperature`` and ``top_p``
    (``top_k=0``), in this order. In particular: of the 2 x `beams` best continuations only those among the first
    `beams` may finish; running captions are cut, not dropped, at `max_tokens`; the log-probabilities are those of the
    full softmax, before BOS, PAD and repeated n-grams are excluded. One difference: when an image has fewer live beams
    than `beams` (a tiny vocabulary), Hugging Face fills up with copies and counts them as finished; we do not.

    BOS and PAD are never produced. Where the memory has a condition, `guidance` applies, see
    `networks.generation.guidance`; with a `control`, a classifier guides or chooses, see `networks.generation.control`.

    Args:
        captioner: the network, in evaluation mode.
        memory: what its `encode` returned, B rows.
        settings: the search.
        generator: source of randomness for sampling, on any device; torch's own if None.
        control: labels that captions are to have, and the classifier that judges it.

    Returns:
        `settings.num_captions` captions for each image: beam search ranks them by score or agreement, sampling
        by log-probability.
    """
    captioner, memory = guided(captioner, memory, settings.guidance)
    captioner, memory = controlled(captioner, memory, control, settings)
    if control is not None and settings.control_rerank:
        several = settings if settings.sample else replace(settings, num_captions=settings.beams)
        return chosen(_found(captioner, memory, several, generator), control, settings)
    return _found(captioner, memory, settings, generator)


def _found(
    captioner: TokenModel, memory: Memory, settings: DecodingSettings, generator: torch.Generator | None
) -> Hypotheses:
    """Captions as search, sampling and minimum Bayes risk rank them."""
    if settings.beams > 1 and settings.mbr_reranking:
        found = beam_search(captioner, memory, replace(settings, num_captions=settings.beams))
        retrieved = captioner.retrieve(memory, settings.retrieval_images) if settings.retrieval_images else None
        weight = settings.retrieval_weight if retrieved is not None else 0.0
        order = consensus_order(found.token_ids, found.log_prob, found.lengths, captioner.eos_id, retrieved, weight)
        order = order[:, : settings.num_captions]
        return cropped(*(take(tensor, order) for tensor in (found.token_ids, found.log_prob, found.lengths)))
    if settings.beams > 1:
        return beam_search(captioner, memory, settings)
    return _decode_rows(captioner, memory, settings, generator)


def _decode_rows(
    captioner: TokenModel, memory: Memory, settings: DecodingSettings, generator: torch.Generator | None
) -> Hypotheses:
    """Greedy decoding or sampling: rows are independent, and a finished row leaves the batch."""
    images, device = rows_of(memory)
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
        scores = token_scores(captioner, logits, tokens[active, :step], settings.no_repeat_ngram_size)
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
    tokens = take(tokens.view(images, copies, -1), order)
    return cropped(tokens, log_prob, take(lengths.view(images, copies), order))


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
