import itertools

import pytest

from datamodules.audit.distributions import Distribution, as_text, distributions, histogram
from datamodules.readers.records import Example
from datamodules.scenes import SceneCaptions


class Data(SceneCaptions):
    """Names of labels, and a tokenizer of words."""

    label_names = ("sea", "tree")


EXAMPLES = [
    Example(image_id=1, captions=("a sea", "The sea, a tree."), labels=(1.0, 0.0)),
    Example(image_id=2, captions=("a tree",), labels=(1.0, 1.0)),
    Example(image_id=3, captions=("a a a a",), labels=(0.0, 0.0)),
]


def found(**changes):
    data = Data(**{"max_tokens": 5, **changes})
    return {item.name: item for item in distributions(data, EXAMPLES, [(640, 480), (480, 640), (500, 375)])}


def test_everything_is_counted():
    result = found()
    assert list(result) == ["width", "height", "caption_lengths", "labels", "words"]
    assert result["caption_lengths"].counts == {"2": 2, "3": 0, "4": 2}
    assert result["caption_lengths"].notes == "mean 3.0, median 3, 2 to 4; 2 (50.0 %) longer than max_tokens=5"
    assert result["labels"].counts == {"sea": 2, "tree": 1}
    assert result["labels"].notes == "1.00 labels an image, 1 images without one"
    assert result["words"].counts == {"a": 7, "sea": 2, "tree": 2, "the": 1}
    assert result["words"].notes == "4 words, 1 of them once; 1 make half of the text"
    assert result["words"].total == sum(result["words"].counts.values())


def test_labels_of_captions_are_counted_by_caption():
    examples = [
        Example(image_id=1, captions=("a sea", "the sea"), conditions=(7, -1)),
        Example(image_id=2, captions=("a tree",), conditions=(0,)),
        Example(image_id=3, captions=("a cat", "a dog"), conditions=(7, 7)),
        Example(image_id=4, captions=("a bird",)),
    ]
    result = {item.name: item for item in distributions(SceneCaptions(feelings=True), examples, [])}
    assert result["caption_labels"].counts == {"sadness": 3, "amusement": 1}
    assert (result["caption_labels"].total, result["caption_labels"].notes) == (6, "2 captions without one")
    assert not result["caption_labels"].is_histogram
    assert "caption_labels" not in found()


@pytest.mark.parametrize("values", [[7], [0, 1], [3, 640, 641], list(range(500)), [100, 10**9]])
def test_every_value_is_in_one_of_few_bins(values):
    result = histogram("width", "width", values)
    assert sum(result.counts.values()) == len(values) == result.total
    assert 1 <= len(result.counts) <= 12
    ends = [[int(end) for end in name.split("-")] for name in result.counts]
    assert ends[0][0] <= min(values)
    assert ends[-1][-1] >= max(values)
    assert [after[0] - before[-1] for before, after in itertools.pairwise(ends)] == [1] * (len(ends) - 1)


def test_text_fits_and_bars_are_in_proportion():
    counts = {"a name that is much too long for a line of text": 200, "b": 100, "c": 1, "d": 0}
    lines = as_text(
        Distribution(name="labels", title="images", counts=counts, total=301, notes="what else is known " * 6)
    )
    assert max(map(len, lines)) <= 79
    bars = [line.count("█") for line in lines[1:5]]
    assert bars[0] > 30
    assert bars == [bars[0], -(-bars[0] // 2), 1, 0]
    assert lines[1].startswith("  a name that is much too…  200  66.4 %")
