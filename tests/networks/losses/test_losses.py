import math

import pytest
import torch
import torch.nn.functional as F

from networks.losses.tokens import token_loss
from networks.losses.words import word_loss, word_shares


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tokens", [1, 64, 150])
def test_loss_and_gradient_are_those_of_cross_entropy(smoothing, tokens):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(tokens, 33, generator=generator)).requires_grad_()
    targets = torch.randint(33, (tokens,), generator=generator)
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    found = token_loss(logits, targets, smoothing)
    torch.testing.assert_close(found, expected)
    (3 * expected).backward()
    gradient, logits.grad = logits.grad, None
    (3 * found).backward()
    torch.testing.assert_close(logits.grad, gradient)


def test_half_precision_is_summed_in_full_precision():
    logits = torch.randn(200, 1000).bfloat16().requires_grad_()
    targets = torch.randint(1000, (200,))
    loss = token_loss(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), targets))
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16


def test_no_tokens_no_loss():
    logits = torch.zeros(0, 7, requires_grad=True)
    loss = token_loss(logits, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (0, 7)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = token_loss(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad.isfinite().all()
    assert not math.isnan(loss.item())


def test_word_shares_count_captions_and_padding_does_not_matter():
    batch = {
        "caption_ids": torch.tensor([[1, 4, 4, 2, 0], [1, 5, 2, 4, 4], [1, 6, 7, 5, 2]]),  # the second ends early
        "caption_lengths": torch.tensor([4, 3, 5]),
        "image_index": torch.tensor([0, 0, 2]),
    }
    shares = word_shares(batch, 3, 8)
    assert shares.tolist() == [[0, 0, 1, 0, 0.5, 0.5, 0, 0], [0] * 8, [0, 0, 1, 0, 0, 1, 1, 1]]
    wider = {**batch, "caption_ids": torch.nn.functional.pad(batch["caption_ids"], (0, 3), value=0)}
    assert torch.equal(word_shares(wider, 3, 8), shares)


def test_word_loss_is_least_at_the_shares_themselves():
    shares = torch.tensor([[0.2, 0.7, 0.5], [0.9, 0.1, 0.4]])
    best = word_loss(shares.logit(), shares)
    entropy = -(shares * shares.log() + (1 - shares) * (1 - shares).log()).sum() / 2
    assert best.item() == pytest.approx(entropy.item(), rel=1e-5)
    assert word_loss(shares.logit() + 0.3, shares) > best
