"""Losses of multi-label classification."""

import torch
import torch.nn.functional as F

from networks.losses.labels import label_loss


def test_plain_loss_is_torchs():
    logits, targets = torch.randn(5, 3), torch.rand(5, 3)
    assert torch.equal(label_loss(logits, targets), F.binary_cross_entropy_with_logits(logits, targets))


def test_balanced_loss_weighs_positives_and_negatives_alike():
    targets = (torch.rand(400, 2) < torch.tensor([0.1, 0.7])).float()
    prior = targets.mean(0)
    positive, negative = targets / (2 * prior), (1 - targets) / (2 * (1 - prior))
    assert torch.allclose(positive.sum(0), negative.sum(0))
    logits = torch.randn(400, 2, dtype=torch.float64)
    probability = logits.sigmoid()
    expected = -(positive * probability.log() + negative * (1 - probability).log()).mean()
    assert torch.allclose(label_loss(logits, targets, prior).double(), expected, atol=1e-6)


def test_balanced_loss_of_a_label_never_seen_is_finite():
    logits = torch.tensor([[30.0, -30.0]], requires_grad=True)
    loss = label_loss(logits, torch.tensor([[0.0, 1.0]]), torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_loss_of_no_rows_is_zero_and_connected():
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = label_loss(logits, torch.zeros(0, 3))
    loss.backward()
    assert loss.item() == 0
