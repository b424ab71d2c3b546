"""Consensus: the expected agreement by hand, and the search that uses it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from networks.captioners.base import Captioner
from networks.generation.consensus import agreement, consensus_order
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings

EOS, PAD = 2, 0


def test_agreement():
    assert agreement([5, 6, 7], [5, 6, 7]) == pytest.approx(1.0)
    assert agreement([5], [6]) == 0.0
    assert agreement([], [5]) == 0.0
    assert agreement([], []) == 0.0
    # one order of n-grams each, lengths differ by one; the repeated word is clipped: 1 * 1 / (2 * 1)
    assert agreement([5, 5], [5]) == pytest.approx(0.5 / 2 * math.exp(-1 / 72))


def test_agreement_is_symmetric_but_for_clipping():
    one, other = [4, 5, 6, 7, 8], [4, 5, 9, 7, 8]
    assert agreement(one, other) == pytest.approx(agreement(other, one))


def test_similar_captions_outvote_a_more_probable_one():
    tokens = torch.tensor([[[9, 9, EOS, PAD], [4, 5, 6, EOS], [4, 5, 7, EOS]]])
    log_prob = torch.tensor([[0.36, 0.32, 0.32]]).log()
    lengths = torch.tensor([[3, 4, 4]])
    order = consensus_order(tokens, log_prob, lengths, EOS)
    shared = agreement([4, 5, 6], [4, 5, 7])
    assert 0.32 * (1 + shared) > 0.36
    assert order.tolist() == [[1, 2, 0]]
    sure = consensus_order(tokens, torch.tensor([[0.9, 0.05, 0.05]]).log(), lengths, EOS)
    assert sure.tolist() == [[0, 1, 2]]


def test_missing_captions_come_last():
    tokens = torch.tensor([[[PAD, PAD], [EOS, PAD], [4, EOS]]])
    log_prob = torch.tensor([[-math.inf, -0.1, -3.0]])
    order = consensus_order(tokens, log_prob, torch.tensor([[0, 1, 2]]), EOS)
    assert order[0, -1] == 0
    nothing = consensus_order(tokens, torch.full((1, 3), -math.inf), torch.zeros(1, 3, dtype=torch.long), EOS)
    assert nothing.tolist() == [[0, 1, 2]]


class Bigram(Captioner):
    """Scores the next token from the last one alone, by a fixed table."""

    def __init__(self) -> None:
        super().__init__(vocab_size=9, bos_id=1, eos_id=EOS, pad_id=PAD)
        self.table = torch.randn(9, 9, generator=torch.Generator().manual_seed(3)) * 2

    def encode(self, batch):
        return {"x": batch["image"]}

    def step(self, memory, token: Tensor, state):
        return self.table[token] + memory["x"][:, :9], {"none": token}

    def forward(self, memory, caption_ids, caption_lengths, image_index):
        raise NotImplementedError


def test_search_returns_the_same_captions_in_another_order():
    captioner, memory = Bigram(), {"x": torch.randn(4, 9, generator=torch.Generator().manual_seed(0))}
    settings = DecodingSettings(beams=6, num_captions=6, max_tokens=8)
    plain = decode(captioner, memory, settings)
    chosen = decode(captioner, memory, replace(settings, mbr_reranking=True))
    one = decode(captioner, memory, replace(settings, num_captions=1, mbr_reranking=True))
    for row in range(4):
        assert sorted(plain.token_ids[row].tolist()) == sorted(chosen.token_ids[row].tolist())
        length = int(one.lengths[row, 0])
        assert one.token_ids[row, 0, :length].tolist() == chosen.token_ids[row, 0, :length].tolist()
        assert length == chosen.lengths[row, 0]
    assert not torch.equal(plain.log_prob, chosen.log_prob)
