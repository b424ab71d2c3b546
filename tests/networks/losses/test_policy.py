"""The policy gradient has no bias, and the loss has the value that it says."""

import itertools

import pytest
import torch

from networks.losses.policy import advantages, policy_loss

REWARD = torch.tensor([0.2, 1.5, 4.0])
"""Of each of three captions of one token."""


def exact_gradient(scores: torch.Tensor) -> torch.Tensor:
    """Of minus the expected reward."""
    scores = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(-(scores.softmax(0) * REWARD).sum(), scores)
    return gradient


@pytest.mark.parametrize("baseline", [None, 1.3])
def test_the_mean_gradient_over_all_draws_is_that_of_the_expected_reward(baseline):
    scores = torch.tensor([0.3, -0.7, 1.1])
    total = torch.zeros(3)
    for drawn in itertools.product(range(3), repeat=2):
        leaf = scores.clone().requires_grad_()
        log_prob = leaf.log_softmax(0)[list(drawn)]
        rewards = REWARD[list(drawn)].unsqueeze(0)
        expected = None if baseline is None else torch.tensor([baseline])
        loss = policy_loss(log_prob, torch.tensor([1, 1]), advantages(rewards, expected).flatten(), rewards.flatten())
        assert loss.item() == pytest.approx(-rewards.mean().item())
        (gradient,) = torch.autograd.grad(loss, leaf)
        total += scores.softmax(0)[list(drawn)].prod() * gradient
    torch.testing.assert_close(total, exact_gradient(scores))


def test_a_caption_counts_with_each_of_its_tokens():
    log_prob = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    loss = policy_loss(log_prob, torch.tensor([1, 2]), torch.tensor([4.0, -1.0]), torch.tensor([1.0, 3.0]))
    loss.backward()
    assert log_prob.grad.tolist() == pytest.approx([-4 / 3, 1 / 3, 1 / 3])
    assert loss.item() == pytest.approx(-2)


def test_captions_of_an_image_that_are_alike_teach_nothing():
    assert advantages(torch.full((2, 5), 0.7)).abs().max() < 1e-6
