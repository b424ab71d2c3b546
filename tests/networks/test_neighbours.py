"""Captions of similar training pictures: found, weighted, heard."""

import pytest
import torch

from networks.consensus import consensus_order
from networks.neighbours import CaptionBank, Evidence

EOS = 2


def filled():
    bank = CaptionBank()
    states = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-2.0, -1.0]])
    bank.fill(states, [[[4, 5], [6]], [[7, 8, 9]], [[3], [3, 3]]])
    return bank, states


def test_nearest_is_the_image_itself():
    bank, states = filled()
    found = bank.nearest(states, 1)
    assert found.lengths.tolist() == [[2, 1], [3, 0], [1, 2]]
    assert found.token_ids[1, 0].tolist() == [7, 8, 9]
    torch.testing.assert_close(found.share, torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]))


def test_shares_sum_to_one_and_more_than_all_is_all():
    bank, _ = filled()
    found = bank.nearest(torch.randn(5, 2), 10)
    assert found.token_ids.shape == (5, 6, 3)
    torch.testing.assert_close(found.share.sum(1), torch.ones(5))
    assert (found.share[found.lengths == 0] == 0).all()


def test_reload_is_the_same():
    bank, states = filled()
    other = CaptionBank()
    other.make_room({f"bank.{name}": value for name, value in bank.state_dict().items()}, "bank.")
    other.load_state_dict(bank.state_dict())
    for mine, theirs in zip(bank.nearest(states, 2), other.nearest(states, 2), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("share", "first"), [(0.0, 0), (1.0, 1)])
def test_neighbours_outvote_the_model_by_their_share(share, first):
    tokens = torch.tensor([[[9, 8, EOS], [4, 5, EOS]]])
    voices = Evidence(torch.tensor([[[4, 5]]]), torch.tensor([[2]]), torch.ones(1, 1))
    log_prob = torch.tensor([[0.9, 0.1]]).log()
    order = consensus_order(tokens, log_prob, torch.tensor([[3, 3]]), EOS, voices, share)
    assert order[0, 0] == first


def test_tipping_point_by_hand():
    """Captions without a common word: the model's .9 and .1 against one voice for the second, of weight w."""
    tokens = torch.tensor([[[9, 8, EOS], [4, 5, EOS]]])
    voices = Evidence(torch.tensor([[[4, 5]]]), torch.tensor([[2]]), torch.ones(1, 1))
    log_prob = torch.tensor([[0.9, 0.1]]).log()
    # .9 (1 - w) = .1 (1 - w) + w at w = .8 / 1.8
    for share, first in ((0.44, 0), (0.45, 1)):
        assert consensus_order(tokens, log_prob, torch.tensor([[3, 3]]), EOS, voices, share)[0, 0] == first
