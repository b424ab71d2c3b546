"""Training throughput of the attention RNN captioner against the plain loop.

    python benchmarks/attention_rnn_step.py [--attention bahdanau dot] [--captions_per_image 1 5] [--rounds 7]
    [--threads 2]

The plain loop is what tutorials do: captions padded to a constant length, an image repeated for each of its captions,
and at every time step the keys are projected again from the regions and the whole vocabulary is scored for every
caption of the batch. Both ways have the same
weights; that they have the same loss over the real tokens and the same gradients is asserted before anything is timed.
A step is forward pass, loss, backward pass and Adam (fused), from stored features on; the two ways take turns and the
medians are compared.

Also printed: the time one batch of features needs from a half-precision memory map, as a share of the step.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from measuring import (
    Row,
    add_json_option,
    available_threads,
    print_rows,
    take_turns,
    training_step,
    work_of,
    write_rows,
)
from torch import Tensor

from core.batch import Batch
from networks.captioners.attention_rnn import AttentionRNNCaptioner
from networks.layers.attention import Attention, AttentionName, BahdanauAttention, DotAttention, build_attention
from networks.layers.recurrent import CellName

PAD, BOS, EOS = 0, 1, 2
PADDED = 36  # tokens of a padded caption, BOS and EOS included


def plain_loss(captioner: AttentionRNNCaptioner, batch: Batch) -> Tensor:
    """Mean loss per real token, computed the plain way: one row of features for each caption, constant length."""
    memory = captioner.encode(batch)
    tokens = batch["caption_ids"]
    layer = captioner.decoder.cell.rnn
    cell = torch.lstm_cell if captioner.decoder.cell.is_lstm else torch.gru_cell
    state = captioner.decoder.start(memory["pooled"])
    scores = []
    for step in range(tokens.shape[1] - 1):
        word = captioner.decoder.embedding(tokens[:, step])
        context = plain_context(captioner.decoder.attention, memory["features"], state["hidden"])
        start = (state["hidden"], state["cell"]) if captioner.decoder.cell.is_lstm else state["hidden"]
        after = cell(torch.cat([word, context], dim=1), start, *layer.all_weights[0])
        state = dict(zip(("hidden", "cell"), after if captioner.decoder.cell.is_lstm else (after,), strict=False))
        merged = captioner.decoder.merge(torch.cat([state["hidden"], context, word], dim=1)).tanh()
        scores.append(captioner.decoder.vocabulary(merged))
    logits = torch.stack(scores, dim=1)
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)


def plain_context(attention: Attention, features: Tensor, state: Tensor) -> Tensor:
    """The context by the formulas as they are written; the keys are projected at every call."""
    match attention:
        case BahdanauAttention():
            energy = torch.tanh(attention.U(state).unsqueeze(1) + attention.V(features))
            weights = attention.W(energy).squeeze(2).softmax(dim=1)
        case DotAttention():
            weights = torch.bmm(attention.K(features), attention.Q(state).unsqueeze(2)).squeeze(2).softmax(dim=1)
        case _:
            return attention(features, state)[0]
    return torch.bmm(weights.unsqueeze(1), features).squeeze(1)


def packed_loss(captioner: AttentionRNNCaptioner, batch: Batch) -> Tensor:
    """The same as the project computes it."""
    output = captioner(captioner.encode(batch), batch["caption_ids"], batch["caption_lengths"], batch["image_index"])
    return F.cross_entropy(output.logits, output.targets)


def make_batch(captions: int, captions_per_image: int, vocab: int, seed: int) -> Batch:
    """Random regions (49 x 1024) and captions: 8 to 16 tokens, 12 in the mean, BOS and EOS included."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 17, (captions,), generator=generator)
    ids = torch.randint(3, vocab, (captions, PADDED), generator=generator)
    ids[:, 0] = BOS
    ids[torch.arange(captions), lengths - 1] = EOS
    images = math.ceil(captions / captions_per_image)
    ids[torch.arange(PADDED) >= lengths.unsqueeze(1)] = PAD
    return {
        "features": torch.randn(images, 49, 1024, generator=generator).relu(),
        "caption_ids": ids,
        "caption_lengths": lengths,
        "image_index": torch.arange(captions) // captions_per_image,
    }


def cropped(batch: Batch) -> Batch:
    """The batch as the data modules make it: T is the longest caption."""
    result = batch.copy()
    result["caption_ids"] = batch["caption_ids"][:, : int(batch["caption_lengths"].max())]
    return result


def repeated(batch: Batch) -> Batch:
    """The batch with one row of features for each caption."""
    result = batch.copy()
    result["features"] = batch["features"][batch["image_index"]]
    return result


def measure(
    attention: AttentionName, cell: CellName, captions_per_image: int, rounds: int, captions: int, vocab: int
) -> Row:
    """Takes turns with one kind of attention and cell."""
    torch.manual_seed(0)
    captioner = AttentionRNNCaptioner(
        attention=build_attention(attention, region_dim=256, hidden_dim=512),
        vocab_size=vocab,
        feature_dim=1024,
        cell=cell,
        dropout=0.0,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    )
    optimizer = torch.optim.Adam(captioner.parameters(), lr=1e-4, fused=True)
    batch = make_batch(captions, captions_per_image, vocab, seed=0)
    plain, ours = repeated(batch), cropped(batch)
    losses: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain_loss(captioner, plain),
        "ours": lambda: packed_loss(captioner, ours),
    }
    assert_same(captioner, losses)
    clock = take_turns({name: training_step(loss, optimizer) for name, loss in losses.items()}, rounds)
    spent = clock.medians()
    flops, size = work_of(losses["ours"], captioner.parameters())
    return Row(
        figure=f"attention RNN, {attention}, {cell}, captions of an image: {captions_per_image}",
        kind="times",
        value=clock.ratio("plain", "ours"),
        goal=6,
        unit=f"step of {captions} captions",
        ours=spent["ours"],
        baseline=spent["plain"],
        flops=flops,
        bytes=size,
        threads=torch.get_num_threads(),
    )


def assert_same(captioner: AttentionRNNCaptioner, losses: dict[str, Callable[[], Tensor]]) -> None:
    """Both ways have the same loss and the same gradients."""
    found = []
    for loss_of in losses.values():
        captioner.zero_grad()
        loss = loss_of()
        loss.backward()
        found.append((loss.detach(), [parameter.grad.clone() for parameter in captioner.parameters()]))
    (loss, gradients), (other_loss, other_gradients) = found
    torch.testing.assert_close(loss, other_loss)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-6)


def measure_reading(images: int, step: float) -> None:
    """Prints how long a batch of stored features takes to read, compared with a training step."""
    stored = 2048
    with tempfile.TemporaryDirectory() as folder:
        store = np.memmap(Path(folder) / "features.bin", np.float16, "w+", shape=(stored, 49, 1024))
        store[:] = 1
        order = np.random.default_rng(0).permutation(stored)
        begin = time.perf_counter()
        for start in range(0, stored, images):
            torch.stack([torch.from_numpy(store[index]) for index in order[start : start + images]]).float()
        seconds = (time.perf_counter() - begin) / (stored / images)
    print(
        f"reading a batch of features: {1000 * seconds:.1f} ms, {seconds / step:.1%} of a step ({1000 * step:.0f} ms)"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="training throughput against the plain loop")
    parser.add_argument("--attention", nargs="+", default=["bahdanau", "dot"], choices=get_args(AttentionName))
    parser.add_argument("--cell", nargs="+", default=["lstm"], choices=get_args(CellName))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64, help="captions")
    parser.add_argument("--captions_per_image", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--vocab", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=available_threads())
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"batch {options.batch}, vocabulary {options.vocab:,}, {PADDED} padded tokens, 12 real ones, "
        f"{options.threads} threads"
    )
    rows = [
        measure(attention, cell, shared, options.rounds, options.batch, options.vocab)
        for attention in options.attention
        for cell in options.cell
        for shared in options.captions_per_image
    ]
    print_rows(rows)
    write_rows(options.json, rows)
    measure_reading(options.batch, rows[-1].ours.wall)


if __name__ == "__main__":
    main()
