"""The image classifier: all dihedral transforms of an image count alike."""

import pytest
import torch

from core.errors import UserError
from networks.classifiers.image import ImageClassifier
from networks.encoders.build import build_encoder
from networks.layers.dihedral import dihedral


def test_a_transformed_image_gets_the_same_labels():
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
    transformed = classifier({"image": dihedral(image, 5)})
    assert torch.allclose(transformed.probabilities(2), output.probabilities(2), atol=1e-5)
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
    [({"pooling": "median"}, "'median'"), ({"hidden_dims": [0]}, r"\[0\]"), ({"views": 8}, "8"), ({"views": 3}, "3")],
)
def test_values_that_do_not_fit_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        ImageClassifier(num_labels=3, encoder=None, feature_dim=4, **values)
