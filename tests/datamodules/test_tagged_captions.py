"""Images with captions and tagged ones: who trains, who is left out, and what is chosen."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cli
from core.errors import DataError, UserError
from datamodules.readers.tags import Tags, selected
from datamodules.tagged_captions import TaggedCaptions
from tests.datamodules.sources.made import make_folder

NAMES = [f"{number}.png" for number in range(12)]


@pytest.fixture
def root(tmp_path):
    """12 images of which the first 6 have captions, and two of the tagged ones are these."""
    make_folder(tmp_path / "images", NAMES)
    splits = ["train", "train", "train", "val", "test", "train"]
    lines = [f"{name},caption {place},{split}" for place, (name, split) in enumerate(zip(NAMES, splits, strict=False))]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption,split", *lines]) + "\n")
    write(tmp_path / "tags.parquet")
    return tmp_path


def write(path, names=NAMES[3:], captions=None, confidence=None, **more):
    count = len(names)
    columns = {
        "image": names,
        "caption": captions or [f"tag {number % 4}" for number in range(count)],
        "confidence": pa.array(confidence or [(number + 1) / (count + 1) for number in range(count)], pa.float32()),
        "agreement": pa.array([1 - number / count for number in range(count)], pa.float32()),
    }
    pq.write_table(pa.table({**columns, **more}), path)


def tagged(root, **options):
    data = TaggedCaptions(root=str(root), tags=str(root / "tags.parquet"), **options)
    return {example.image_id: example.captions for example in data.examples("train") if "tag" in example.captions[0]}


def test_images_with_captions_keep_them_and_the_others_have_tags(root):
    data = TaggedCaptions(root=str(root), tags=str(root / "tags.parquet"))
    train = {str(example.image_id): example for example in data.examples("train")}
    assert set(train) == {"0.png", "1.png", "2.png", "5.png", *NAMES[6:]}
    assert train["0.png"].captions == ("caption 0",)
    assert train["6.png"].captions == ("tag 3",)
    for split, name in (("val", "3.png"), ("test", "4.png")):
        assert [example.image_id for example in data.examples(split)] == [name]
    for example in train.values():
        data.open_image(example)


def test_without_tags_it_is_the_folder(root):
    data = TaggedCaptions(root=str(root))
    assert [example.image_id for example in data.examples("train")] == ["0.png", "1.png", "2.png", "5.png"]


def test_captions_that_were_drawn_are_learnt_from(root):
    """In place of the best one, each once; where none was drawn, the best one."""
    drawn = [["tag a", "tag b", "tag a"], [], None]
    write(root / "tags.parquet", NAMES[6:9], captions=["tag"] * 3, captions_drawn=drawn)
    assert tagged(root) == {"6.png": ("tag",), "7.png": ("tag",), "8.png": ("tag",)}
    table = pq.read_table(root / "tags.parquet")
    pq.write_table(table.rename_columns({"captions_drawn": "captions"}), root / "tags.parquet")
    assert tagged(root) == {"6.png": ("tag a", "tag b"), "7.png": ("tag",), "8.png": ("tag",)}
    assert set(tagged(root, most_repeats=1)) == {"8.png"}, "the best captions decide who is chosen"


def test_images_may_be_elsewhere(root, tmp_path):
    make_folder(tmp_path / "more", ["a/x.png", "b.png"])
    write(root / "tags.parquet", ["a/x.png", "b.png"])
    assert set(tagged(root, tagged_folder=str(tmp_path / "more"))) == {"a/x.png", "b.png"}


def test_an_image_is_known_by_its_file(root):
    # the captions name it from the root, the tags from the folder that was tagged
    (root / "captions.csv").write_text("image,caption,split\nimages/0.png,one,train\nimages/1.png,two,val\n")
    assert "1.png" not in tagged_from(root, NAMES[:3])
    assert "2.png" in tagged_from(root, NAMES[:3])


def tagged_from(root, names):
    write(root / "tags.parquet", names)
    return tagged(root, tagged_folder=str(root / "images"), test_fraction=0.0)


def test_what_is_chosen(root):
    assert set(tagged(root, min_confidence=0.75)) == {"10.png", "11.png"}
    assert set(tagged(root, min_agreement=0.6)) == {"6.png"}
    assert set(tagged(root, tagged_share=0.25)) == {"10.png", "11.png"}
    assert set(tagged(root, most_repeats=1)) == {"8.png", "9.png", "10.png", "11.png"}
    assert set(tagged(root, tagged_share=0.5, rank_by="agreement")) == {"6.png"}


def test_parts_of_a_job_are_tags_and_bad_images_are_none(root):
    (root / "job").mkdir()
    write(root / "job" / "part-000000.parquet", ["6.png", "7.png"], ["tag", None], error=[None, "broken"])
    write(root / "job" / "part-000001.parquet", ["8.png"], ["tag"], error=[None])
    data = TaggedCaptions(root=str(root), tags=str(root / "job"))
    assert [example.image_id for example in data.examples("train")][4:] == ["6.png", "8.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 2}, "min_confidence is 2: expected 0 to 1"),
        ({"tagged_share": -1}, "share is -1: expected 0 to 1"),
        ({"most_repeats": 0}, "most_repeats is 0"),
        ({"min_confidence": 0.99}, "of 9 tags 0 are chosen"),
        ({"tags": "nowhere"}, "nowhere: no such file"),
        ({"tags": "."}, "no part-*.parquet in it"),
        ({"tags": "captions.csv"}, "cannot be read as a table of tags"),
        ({"tags": "other.parquet"}, "has no column 'caption'"),
        ({"tags": "odd.parquet"}, "column 'confidence' has values that are not from 0 to 1"),
    ],
)
def test_mistakes_are_said_in_a_line(root, monkeypatch, options, message):
    monkeypatch.chdir(root)
    pq.write_table(pa.table({"image": ["a"]}), "other.parquet")
    write("odd.parquet", ["9.png"], confidence=[7.0])
    with pytest.raises((UserError, DataError)) as caught:
        TaggedCaptions(**{"root": ".", "tags": "tags.parquet", **options}).examples("train")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_check_reads_them(root, capsys):
    line = ["data", "check", "tagged_captions", "--root", str(root), "--tags", str(root / "tags.parquet")]
    assert cli.main(line) == 0, capsys.readouterr().out


numbers = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), numbers, numbers), max_size=12),
    numbers,
    numbers,
    st.integers(1, 3),
)
def test_laws_of_the_selection(rows, bound, share, most):
    captions = [row[0] for row in rows]
    certainty = {
        name: np.array([row[place] for row in rows], np.float32)
        for name, place in (("confidence", 1), ("agreement", 2))
    }
    tags = Tags(images=[str(place) for place in range(len(rows))], captions=captions, certainty=certainty)
    chosen = selected(tags, min_confidence=bound, share=share, most_repeats=most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= round(share * len(rows))
    assert all(certainty["confidence"][place] >= np.float32(bound) for place in chosen)
    assert all(sum(captions[place] == caption for place in chosen) <= most for caption in "abc")
    # nobody who is left out is surer than one with the same caption who is not
    for place in set(range(len(rows))) - set(chosen):
        same = [other for other in chosen if captions[other] == captions[place]]
        assert all(certainty["confidence"][other] >= certainty["confidence"][place] for other in same)
    assert selected(tags) == list(range(len(rows)))
