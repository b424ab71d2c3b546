"""A training step of the text autoencoder against the plain word-by-word loop.

    python benchmarks/text_autoencoder_step.py [--width 128 1024] [--scheduled_sampling 0 0.5] [--padded 36 24]
    [--rounds 9] [--threads 1]

The plain loop is what tutorials do: captions padded to a constant length (36 tokens are the project's longest, 24 those
of UCM-Captions' longest caption); encoder and decoder layer by layer, one call
of a cell for every layer and word; the whole vocabulary scored at every step. Both ways have the same weights; that
they have the same loss over the real tokens and the same gradients is asserted, without dropout, before anything is
timed. A step is forward pass, loss, backward pass and Adam (fused). The two ways take turns; medians are compared.

With `scheduled_sampling` above 0 the plain loop stays as it is (it reads its own words at no extra cost), ours is cut
into pieces.
"""

import argparse
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measuring import Row, add_json_option, print_rows, take_turns, training_step, work_of, write_rows
from torch import Tensor, nn

from networks.captioners.text_autoencoder import TextAutoencoder

PAD, BOS, EOS = 0, 1, 2
WORDS = 286  # tokens of UCM-Captions

Way = Callable[[TextAutoencoder, Tensor, Tensor, float], Tensor]


def make_captions(captions: int, padded: int) -> tuple[Tensor, Tensor]:
    """Random captions: 8 to 20 tokens, BOS and EOS included, padded to `padded`."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 21, (captions,), generator=generator)
    ids = torch.randint(4, WORDS, (captions, padded), generator=generator)
    ids[:, 0] = BOS
    ids[torch.arange(captions), lengths - 1] = EOS
    ids[torch.arange(padded) >= lengths.unsqueeze(1)] = PAD
    return ids, lengths


def stacked(rnn: nn.LSTM, word: Tensor, state: list[tuple[Tensor, Tensor]], dropout: nn.Dropout) -> Tensor:
    """One word through all layers, one cell after the other; `state` is changed in place."""
    for layer, weights in enumerate(rnn.all_weights):
        state[layer] = torch.lstm_cell(word, state[layer], *weights)
        word = state[layer][0]
        if layer + 1 < len(state):
            word = dropout(word)
    return word


def plain_loss(model: TextAutoencoder, ids: Tensor, lengths: Tensor, scheduled_sampling: float) -> Tensor:
    """Mean loss per real token, word by word."""
    encoder, decoder = model.encoder, model.decoder
    zero = torch.zeros(len(ids), decoder.hidden_dim)
    state = [(zero, zero) for _ in range(decoder.layers)]
    for step in range(1, ids.shape[1]):
        before = list(state)
        stacked(encoder.rnn, encoder.dropout(encoder.words(ids[:, step])), state, encoder.dropout)
        runs = (step < lengths).unsqueeze(1)
        state = [
            (torch.where(runs, new[0], old[0]), torch.where(runs, new[1], old[1]))
            for new, old in zip(state, before, strict=True)
        ]
    state = [(cell, cell) for _, cell in state]
    token, scores = ids[:, 0], []
    for step in range(1, ids.shape[1]):
        output = stacked(decoder.rnn, decoder.read(token), state, decoder.dropout)
        scores.append(decoder.vocabulary(decoder.dropout(output)))
        own = scheduled_sampling > 0 and torch.rand(()) < scheduled_sampling
        token = scores[-1].argmax(dim=1) if own else ids[:, step]
    return F.cross_entropy(torch.stack(scores, dim=1).flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)


def fused_loss(model: TextAutoencoder, ids: Tensor, lengths: Tensor, scheduled_sampling: float) -> Tensor:
    """The same as the project computes it: captions cut to the longest, layers over all words at once."""
    ids = ids[:, : int(lengths.max())]
    memory = model.encode({"caption_ids": ids, "caption_lengths": lengths})
    output = model(memory, ids, lengths, torch.arange(len(ids)), scheduled_sampling)
    return F.cross_entropy(output.logits, output.targets)


def assert_same(model: TextAutoencoder, ways: dict[str, Way], ids: Tensor, lengths: Tensor) -> None:
    """Both ways have the same loss and the same gradients."""
    model.eval()
    found = []
    for loss_of in ways.values():
        model.zero_grad()
        loss = loss_of(model, ids, lengths, 0.0)
        loss.backward()
        found.append((loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
    model.train()
    (loss, gradients), (other_loss, other_gradients) = found
    torch.testing.assert_close(loss, other_loss)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-6)


def measure(width: int, scheduled_sampling: float, captions: int, padded: int, rounds: int) -> Row:
    """Takes turns at one width."""
    torch.manual_seed(0)
    model = TextAutoencoder(
        vocab_size=WORDS, word_dim=300, hidden_dim=width, dropout=0.1, bos_id=BOS, eos_id=EOS, pad_id=PAD
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    ways: dict[str, Way] = {"plain": plain_loss, "ours": fused_loss}
    ids, lengths = make_captions(captions, padded)
    assert_same(model, ways, ids, lengths)
    steps = {
        name: training_step(lambda way=way: way(model, ids, lengths, scheduled_sampling), optimizer)
        for name, way in ways.items()
    }
    clock = take_turns(steps, rounds)
    spent = clock.medians()
    flops, size = work_of(lambda: fused_loss(model, ids, lengths, 0.0), model.parameters())
    own = f", {scheduled_sampling:.0%} own words" if scheduled_sampling else ""
    return Row(
        figure=f"text autoencoder, width {width}, padded to {padded}{own}",
        kind="share",
        value=clock.ratio("ours", "plain"),
        goal=0.5,
        unit=f"step of {captions} captions",
        ours=spent["ours"],
        baseline=spent["plain"],
        flops=flops,
        bytes=size,
        threads=torch.get_num_threads(),
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="training step of the text autoencoder against the plain loop")
    parser.add_argument("--width", nargs="+", type=int, default=[128, 256])
    parser.add_argument("--scheduled_sampling", nargs="+", type=float, default=[0.0, 0.5])
    parser.add_argument("--padded", nargs="+", type=int, default=[36, 24], help="tokens of the plain loop's captions")
    parser.add_argument("--batch", type=int, default=32, help="captions")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.batch} captions, 14 real tokens each, {options.threads} threads")
    rows = [
        measure(width, scheduled_sampling, options.batch, padded, options.rounds)
        for width, padded, scheduled_sampling in itertools.product(
            options.width, options.padded, options.scheduled_sampling
        )
    ]
    print_rows(rows)
    write_rows(options.json, rows)


if __name__ == "__main__":
    main()
