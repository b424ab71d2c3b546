"""Captions of similar training pictures: found, weighted, heard."""

import pytest
import torch

from metrics.captions import score_captions
from networks.generation.consensus import _retrieval_agreement, consensus_order
from networks.generation.retrieval import RetrievalIndex, RetrievedCaptions

EOS = 2


def filled():
    bank = RetrievalIndex()
    states = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-2.0, -1.0]])
    bank.fill(states, [[[4, 5], [6]], [[7, 8, 9]], [[3], [3, 3]]])
    return bank, states


def test_nearest_is_the_image_itself():
    bank, states = filled()
    found = bank.nearest(states, 1)
    assert found.lengths.tolist() == [[[2, 1]], [[3, 0]], [[1, 2]]]
    assert found.token_ids[1, 0, 0].tolist() == [7, 8, 9]
    assert found.share.tolist() == [[1.0], [1.0], [1.0]]


def test_shares_sum_to_one_and_more_than_all_is_all():
    bank, _ = filled()
    found = bank.nearest(torch.randn(5, 2), 10)
    assert found.token_ids.shape == (5, 3, 2, 3)
    torch.testing.assert_close(found.share.sum(1), torch.ones(5))


def test_a_picture_without_captions_has_no_share():
    bank = RetrievalIndex()
    states = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-2.0, -1.0]])
    bank.fill(states, [[[4, 5]], [], [[3]]])
    found = bank.nearest(states, 3)
    assert (found.share[found.lengths.sum(2) == 0] == 0).all()
    torch.testing.assert_close(found.share.sum(1), torch.ones(3))


def test_reload_is_the_same():
    bank, states = filled()
    other = RetrievalIndex()
    other.resize_buffers({f"bank.{name}": value for name, value in bank.state_dict().items()}, "bank.")
    other.load_state_dict(bank.state_dict())
    for mine, theirs in zip(bank.nearest(states, 2), other.nearest(states, 2), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("share", "first"), [(0.0, 0), (1.0, 1)])
def test_neighbours_outvote_the_model_by_their_share(share, first):
    tokens = torch.tensor([[[9, 8, EOS], [4, 5, EOS]]])
    voices = RetrievedCaptions(torch.tensor([[[[4, 5]]]]), torch.tensor([[[2]]]), torch.ones(1, 1))
    log_prob = torch.tensor([[0.9, 0.1]]).log()
    order = consensus_order(tokens, log_prob, torch.tensor([[3, 3]]), EOS, voices, share)
    assert order[0, 0] == first


def test_tipping_point_by_hand():
    """Captions without a common word: the model's .9 and .1 against a picture of which the second was said."""
    tokens = torch.tensor([[[9, 8, EOS], [4, 5, EOS]]])
    voices = RetrievedCaptions(torch.tensor([[[[4, 5]]]]), torch.tensor([[[2]]]), torch.ones(1, 1))
    log_prob = torch.tensor([[0.9, 0.1]]).log()
    # .9 (1 - w) = .1 (1 - w) + w at w = .8 / 1.8
    for share, first in ((0.44, 0), (0.45, 1)):
        assert consensus_order(tokens, log_prob, torch.tensor([[3, 3]]), EOS, voices, share)[0, 0] == first


def test_retrieval_agreement_is_corpus_bleu_against_all_captions_of_a_picture():
    """Two pictures of shares .75 and .25; the metric is asked for four pictures, three of the first kind."""
    said = [["4 5 6 7 8", "4 5 9 9"], ["9 9 4 5 6", "3"]]
    table = torch.zeros(1, 2, 2, 5, dtype=torch.long)
    lengths = torch.zeros(1, 2, 2, dtype=torch.long)
    for image, texts in enumerate(said):
        for place, text in enumerate(texts):
            ids = [int(word) for word in text.split()]
            table[0, image, place, : len(ids)] = torch.tensor(ids)
            lengths[0, image, place] = len(ids)
    voices = RetrievedCaptions(table, lengths, torch.tensor([[0.75, 0.25]]))
    candidates = ["4 5 6 7 8", "9 9 4 5 6", "3"]
    references = {str(k): said[0 if k < 3 else 1] for k in range(4)}
    for text in candidates[:2]:
        expected = score_captions(dict.fromkeys(references, text), references)["bleu4"]
        assert _retrieval_agreement([tuple(map(int, text.split()))], voices, 0) == pytest.approx([expected])
    short = score_captions(dict.fromkeys(references, "3"), references)["bleu1"]
    assert _retrieval_agreement([(3,), ()], voices, 0) == pytest.approx([short, 0.0])
