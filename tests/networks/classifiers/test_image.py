"""The classifier of pictures: all positions of a picture count alike."""

import pytest
import torch
import torch.nn.functional as F

from core.errors import UserError
from networks.classifiers.image import ImageClassifier
from networks.encoders.build import build_encoder
from networks.layers.dihedral import SYMMETRIES, lay, random_dihedral
from networks.losses.labels import label_loss


def test_eight_positions_are_all_there_are():
    picture = torch.arange(9.0).view(1, 3, 3)
    positions = [lay(picture, place) for place in range(SYMMETRIES)]
    assert len({tuple(item.flatten().tolist()) for item in positions}) == 8
    assert torch.equal(positions[0], picture)
    assert torch.equal(positions[4], picture.flip(-1))


def test_positions_at_random_are_repeatable_and_belong_to_each_picture():
    pictures = torch.randn(40, 3, 4, 4)
    torch.manual_seed(3)
    laid = random_dihedral(pictures)
    torch.manual_seed(3)
    assert torch.equal(laid, random_dihedral(pictures))
    known = torch.stack([lay(pictures, place) for place in range(SYMMETRIES)])
    places = [
        [torch.equal(laid[row], known[place, row]) for place in range(SYMMETRIES)].index(True) for row in range(40)
    ]
    assert len(set(places)) == SYMMETRIES


def test_a_turned_picture_gets_the_same_labels():
    classifier = ImageClassifier(
        num_labels=3,
        encoder=build_encoder("small-conv", None),
        feature_dim=0,
        hidden_dims=[8],
        pooling="mean_max",
        views=8,
    ).eval()
    image = torch.randn(2, 3, 64, 64)
    output = classifier({"image": image})
    assert output.logits.shape == (16, 3)
    rows = output.logits.sigmoid().view(8, 2, 3)
    assert torch.allclose(output.probabilities(2), rows.mean(0), atol=1e-6)
    turned = classifier({"image": lay(image, 5)})
    assert torch.allclose(turned.probabilities(2), output.probabilities(2), atol=1e-5)
    assert classifier.train()({"image": image}).logits.shape == (2, 3)


def test_features_and_pictures_give_the_same():
    encoder = build_encoder("small-conv", None).eval()
    own = ImageClassifier(num_labels=3, encoder=encoder, feature_dim=0, hidden_dims=[8], normalize=True).eval()
    stored = ImageClassifier(
        num_labels=3, encoder=None, feature_dim=encoder.grid_dim, hidden_dims=[8], normalize=True
    ).eval()
    stored.load_state_dict({name: value for name, value in own.state_dict().items() if not name.startswith("encoder.")})
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(own({"image": image}).logits, stored({"features": encoder.grid(image)}).logits)


def test_published_head():
    head = ImageClassifier(num_labels=17, encoder=None, feature_dim=2048).head
    assert [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, torch.nn.Linear)] == [
        (2048, 1000),
        (1000, 100),
        (100, 17),
    ]
    assert [layer.p for layer in head if isinstance(layer, torch.nn.Dropout)] == [0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("values", "said"),
    [({"pooling": "median"}, "'median'"), ({"hidden": [0]}, r"\[0\]"), ({"views": 8}, "8"), ({"views": 3}, "3")],
)
def test_values_that_do_not_fit_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        ImageClassifier(num_labels=3, encoder=None, feature_dim=4, **values)


# losses


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
