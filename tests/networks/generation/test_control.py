"""A classifier that guides or chooses changes what it is there to change, and nothing else."""

import dataclasses

import pytest
import torch

from core.errors import UserError
from networks.classifiers.prefix import PrefixClassifier
from networks.generation.beams import beam_search
from networks.generation.control import Control, controlled
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.sequences import target_mask
from tests.networks.generation.test_search import BOS, EOS, PAD, table

LABELS = 3
SETTINGS = {
    "greedy": DecodingSettings(max_tokens=6),
    "beams": DecodingSettings(max_tokens=6, beams=4, num_captions=3),
    "samples": DecodingSettings(max_tokens=6, sample=True, num_captions=5, top_p=0.95),
}


def classifier(vocab: int = 12, seed: int = 0) -> PrefixClassifier:
    torch.manual_seed(seed)
    network = PrefixClassifier(num_labels=LABELS, vocab_size=vocab, word_dim=6, hidden_dim=8)
    torch.nn.init.normal_(network.head.weight, std=2.0)
    return network.eval()


def control(network: PrefixClassifier, labels: list[int], words: int = 50) -> Control:
    return Control(classifier=network, labels=torch.tensor(labels), words=words)


def captions(model, settings, own=None):
    found = decode(model, model.encode({}), settings, torch.Generator().manual_seed(0), own)
    return found.token_ids, found.log_prob, found.lengths


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def random_captions():
    """Ids and lengths of captions, BOS to EOS."""
    lengths = torch.tensor([7, 3, 5, 2])
    ids = torch.randint(3, 12, (4, 7), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = BOS
    for row, length in enumerate(lengths):
        ids[row, length - 1], ids[row, length:] = EOS, PAD
    return ids, lengths


def test_beginnings_are_scored_alike_in_a_call_and_word_by_word():
    network, (ids, lengths) = classifier(), random_captions()
    with torch.no_grad():
        expected = network(ids, lengths).log_softmax(1)
        hidden, rows = network.start(4), []
        for token in ids[:, 1:].unbind(1):
            other = (token + 1) % 12
            several = network.read(hidden, torch.stack([token, other], dim=1))
            torch.testing.assert_close(several[:, 1], network.read(hidden, other))
            hidden = network.read(hidden, token)
            torch.testing.assert_close(several[:, 0], hidden)
            rows.append(network.log_probs(hidden))
        found = torch.stack(rows, dim=1)
        torch.testing.assert_close(found[target_mask(lengths, 7)], expected, rtol=1e-5, atol=1e-5)
        whole = network.whole(ids[:, 1:], lengths - 1)
        torch.testing.assert_close(whole, found[torch.arange(4), lengths - 2], rtol=1e-5, atol=1e-5)


def test_padding_does_not_matter():
    network, (ids, lengths) = classifier(), random_captions()
    behind = torch.arange(11) >= lengths.unsqueeze(1)
    other = torch.nn.functional.pad(ids, (0, 4)).masked_fill(behind, 5)
    with torch.no_grad():
        torch.testing.assert_close(network(other, lengths), network(ids, lengths))
        torch.testing.assert_close(network.whole(other[:, 1:], lengths - 1), network.whole(ids[:, 1:], lengths - 1))


@pytest.mark.parametrize("name", SETTINGS)
def test_strength_zero_no_label_and_a_classifier_that_knows_nothing_change_nothing(name):
    """Bit by bit, whatever else is decoded with them."""
    model, settings = table(images=4, vocab=12), SETTINGS[name]
    plain = captions(model, settings)
    own = control(classifier(), [0, 1, 2, 0])
    assert same(captions(model, dataclasses.replace(settings, control_strength=0.0), own), plain)
    assert same(captions(model, settings, control(classifier(), [-1] * 4)), plain)
    knows_nothing = classifier()
    torch.nn.init.zeros_(knows_nothing.head.weight)
    torch.nn.init.zeros_(knows_nothing.head.bias)
    strong = dataclasses.replace(settings, control_strength=7.0)
    assert same(captions(model, strong, control(knows_nothing, [0, 1, 2, 0], words=3)), plain)
    assert not same(captions(model, strong, own), plain)
    mixed = captions(
        model, dataclasses.replace(strong, sample=False, num_captions=1), control(classifier(), [0, -1, 2, -1])
    )
    alone = captions(model, dataclasses.replace(settings, sample=False, num_captions=1))
    width = min(mixed[0].shape[2], alone[0].shape[2])
    assert torch.equal(mixed[0][1::2, :, :width], alone[0][1::2, :, :width])
    assert torch.equal(mixed[1][1::2], alone[1][1::2])


def test_greedy_is_the_best_word_by_bayes_rule_and_a_beam_of_one():
    """Written again from the definition, word by word; and a search of width one."""
    model, network, labels, strength = table(images=4, vocab=12), classifier(), [0, 1, 2, 1], 1.5
    settings = DecodingSettings(max_tokens=6, control_strength=strength)
    own = control(network, labels)
    found = captions(model, settings, own)
    for image, label in enumerate(labels):
        written: list[int] = []
        while len(written) < 6 and EOS not in written:
            scores = model.table[image, len(written), ([BOS, *written])[-1]].log_softmax(0)
            ends = torch.tensor([[BOS, *written, word] for word in range(12)])
            with torch.no_grad():
                judged = network.whole(ends[:, 1:], torch.full((12,), len(written) + 1))[:, label]
            total = scores + strength * judged
            total[[BOS, PAD]] = -torch.inf
            written.append(int(total.argmax()))
        assert found[0][image, 0, : len(written)].tolist() == written
    memory, settings = model.encode({}), dataclasses.replace(settings, control_strength=3.0)
    greedy = decode(model, memory, settings, control=own)
    guided, under = controlled(model, memory, own, settings)
    beam = beam_search(guided, under, settings)
    assert torch.equal(greedy.token_ids, beam.token_ids)
    torch.testing.assert_close(greedy.log_prob, beam.log_prob)


@pytest.mark.parametrize("name", SETTINGS)
def test_more_strength_makes_the_label_more_probable(name):
    model, network = table(images=24, vocab=12), classifier()
    labels = [0, 1, 2] * 8
    values = []
    for strength in (0.0, 1.0, 4.0):
        settings = dataclasses.replace(SETTINGS[name], control_strength=strength)
        tokens, _, lengths = captions(model, settings, control(network, labels))
        with torch.no_grad():
            judged = network.whole(tokens.flatten(0, 1), lengths.flatten()).view(24, -1, LABELS)
        values.append(judged.exp()[torch.arange(24), :, torch.tensor(labels)].mean().item())
    assert values[0] + 0.05 < values[1] < values[2]


def test_words_that_are_not_judged_overtake_none_that_is():
    model, network, labels = table(images=24, vocab=12), classifier(), [0, 1, 2] * 8
    settings = DecodingSettings(max_tokens=1, beams=2, num_captions=2, control_strength=50.0)
    first, _, _ = captions(model, settings, control(network, labels, words=2))
    scores = model.table[:, 0, BOS].clone()
    scores[:, [BOS, PAD]] = -torch.inf
    best = scores.topk(2, dim=1).indices
    assert torch.equal(first[:, :, 0].sort(dim=1).values, best.sort(dim=1).values)
    assert not torch.equal(first[:, :, 0], best)


@pytest.mark.parametrize("name", ["beams", "samples"])
def test_the_choice_among_finished_captions(name):
    """Weight 0 is the search itself; a large one takes the caption that the classifier prefers of those found."""
    model, network, labels = table(images=24, vocab=12), classifier(), [0, 1, 2] * 8
    settings = dataclasses.replace(SETTINGS[name], control_strength=0.0, num_captions=4)
    own = control(network, labels)
    found = captions(model, settings, own)
    assert same(captions(model, settings), found)
    tokens, log_prob, lengths = captions(model, dataclasses.replace(settings, control_rerank=1e4), own)
    for rows, chosen in ((log_prob, found[1]), (lengths, found[2])):
        assert torch.equal(rows.sort(dim=1).values, chosen.sort(dim=1).values)
    with torch.no_grad():
        judged = network.whole(tokens.flatten(0, 1), lengths.flatten()).view(24, 4, LABELS)
    own_label = judged[torch.arange(24), :, torch.tensor(labels)]
    assert (own_label.diff(dim=1) <= 1e-5).all()
    assert not torch.equal(log_prob, found[1])
    least = captions(model, dataclasses.replace(settings, control_rerank=1e-9), own)
    assert same(least, found)
    one = dataclasses.replace(settings, control_rerank=1e4, num_captions=1)
    if name == "beams":
        assert torch.equal(captions(model, one, own)[1], log_prob[:, :1])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"control_strength": -1.0}, r"control_strength=-1.0: expected 0 \(off\) or more"),
        ({"control_rerank": float("inf")}, "control_rerank=inf"),
        ({"control_rerank": 1.0}, "with beams=1: there is one caption"),
        ({"control_rerank": 1.0, "beams": 3, "mbr_reranking": True}, "both rank captions"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        DecodingSettings(**values)
