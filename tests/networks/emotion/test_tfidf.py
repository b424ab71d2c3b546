"""TF-IDF features against scikit-learn, and the linear model on them."""

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from networks.emotion.tfidf import TextClassifier, text_features
from tests.networks.emotion.emotion_batch import make_batch

TEXTS = ["A dog runs and a dog barks", "the cat sat", "a red bird, sitting there", "cat and dog and cat"]


def network(buckets=1 << 15):
    result = TextClassifier(num_labels=3, buckets=buckets)
    result.fit_frequencies(TEXTS)
    return result


def features(model, text):
    """Buckets and weighted values of a text."""
    places, counts = model._features(text)
    return places, model._scaled(places, counts, torch.zeros_like(places), 1)


def test_values_are_those_of_scikit_learn():
    """Products of feature vectors do not depend on the order of features."""
    model = network()
    own = torch.zeros(len(TEXTS), 2 * model.buckets)
    for row, text in enumerate(TEXTS):
        places, values = features(model, text)
        own[row, places] = values
    for group, settings in (
        (slice(0, model.buckets), {"ngram_range": (1, 2)}),
        (slice(model.buckets, None), {"analyzer": "char_wb", "ngram_range": (3, 5)}),
    ):
        texts = TEXTS if "analyzer" not in settings else [t.replace(",", "").replace(" a ", " ") for t in TEXTS]
        texts = [text.removeprefix("A ").removeprefix("a ") for text in texts] if "analyzer" in settings else texts
        matrix = TfidfVectorizer(sublinear_tf=True, **settings).fit_transform(texts)
        part = own[:, group]
        np.testing.assert_allclose((part @ part.T).numpy(), (matrix @ matrix.T).toarray(), atol=1e-5)


def test_scores_are_a_linear_layer_on_the_features():
    model = network(256)
    torch.nn.init.normal_(model.head.weight)
    batch = make_batch()
    output = model(batch)
    for row, text in enumerate(["a dog", "the dog", "cat", "red bird sits"]):
        places, values = features(model, text)
        dense = torch.zeros(512).index_add_(0, places, values)
        torch.testing.assert_close(output.logits[row], model.head(dense))


def test_text_without_words_gets_the_bias_alone():
    model = network(64)
    torch.nn.init.ones_(model.head.bias)
    output = model({"image_id": ["a"], "references": [["!"]]})
    assert output.logits.tolist() == [[1.0, 1.0, 1.0]]


def test_feature_buckets_do_not_depend_on_the_process():
    assert text_features("two dogs", 1000) == text_features("Two  DOGS.", 1000)
    assert text_features("dog", 1000)[0][0] == 165  # CRC-32 of "dog", modulo 1000


def test_frequencies_travel_in_the_state():
    model, other = network(64), TextClassifier(num_labels=3, buckets=64)
    other.load_state_dict(model.state_dict())
    batch = make_batch()
    torch.nn.init.normal_(model.head.weight)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(batch).logits, other(batch).logits)
