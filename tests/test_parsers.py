"""Laws of every parser for any text: a value or one line for the user, and what a writer writes comes back."""

import contextlib
import csv
import io
import json
import math
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.arguments import comma_list, dashed, positive
from commands.comparison.data import option_values, options
from commands.comparison.results import short_names
from commands.recipes.document import resolve
from commands.recipes.reading import as_text, read_document, read_texts
from commands.score_files import read_predictions, read_references
from commands.trainer.old_names import NewNames
from commands.trainer.parser import tidy
from commands.trainer.runs import config_files
from core.errors import UserError
from core.inputs import parse_json, read_text, shown
from core.metric_rows import read_metric_rows
from core.renamed import renamed_checkpoint, renamed_data_options, renamed_metric, renamed_options, renamed_tensor
from core.safe_yaml import parse_yaml
from core.trust import check_trusted
from datamodules.loading.tokenization import WordTokenizer, split_words, tokenizer_from_spec
from datamodules.readers.caption_files import read_records
from datamodules.readers.caption_tables import table_cells
from datamodules.readers.frames import read_frame
from datamodules.readers.images import open_image
from datamodules.readers.label_tables import LabelColumns, label_list, read_label_table
from datamodules.readers.records import caption_texts, clean_caption, fail, slashes, split_name
from datamodules.readers.socratis_cleaning import clean, emotion_list, read_annotations
from datamodules.readers.ucm_labels import read_label_table as read_multilabels
from datamodules.splitting.splits import assign_splits
from datamodules.stored_features.arrays import array_shape, read_array
from metrics.tokenize import tokenize_caption
from reporting.loggers import CSVFile

LAW = settings(
    derandomize=True,  # the same examples every time, so that the suite is as repeatable as the rest of it
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OLD = ("--model.init_args.fusion_width=[1", "--model.init_args.fusion_width={", "--model.fusion_width")
"""Options by old names with values that are no YAML."""
WORDS = st.text(max_size=40)
LINES = st.text(st.sampled_from("ab,;\t|\"'\n\r {}[]:0129.\\\u2028é#"), max_size=120)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | WORDS


def nested(leaves):
    """Lists and objects of values, one inside the other."""
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=10
    )


VALUES = nested(PLAIN)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/\r\n"), min_size=1, max_size=12)
FILES = NAMES.filter(lambda name: slashes(name) == name)
SENTENCES = NAMES.map(clean_caption).filter(len)
FIGURES = st.dictionaries(st.sampled_from(["loss", "val/bleu4"]), st.floats(allow_nan=False), min_size=1)
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12)


def ends_well(parse, *arguments):
    """The value; None when the user is told in one line what is wrong."""
    message = "a value"
    try:
        return parse(*arguments)
    except UserError as error:
        message = str(error)
        return None
    finally:
        assert message
        assert "\n" not in message


# files of any content


@pytest.fixture
def file(tmp_path):
    return tmp_path / "x.txt"


READERS = {
    "captions": read_records,
    "labels": lambda path: read_label_table(path, LabelColumns(), fail),
    "multi-labels": read_multilabels,
    "predictions": read_predictions,
    "references": lambda path: read_references(path, ["1"]),
    "metrics.csv": read_metric_rows,
    "image": open_image,
    "frame": lambda path: read_frame(read_text(path), path),
}


@pytest.mark.parametrize("name", READERS)
@LAW
@given(content=st.binary(max_size=80) | LINES.map(str.encode) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_content(name, file, content):
    file.write_bytes(content)
    ends_well(READERS[name], file)


@LAW
@given(content=st.binary(max_size=80))
def test_any_array(tmp_path, content):
    for name in ("x.npy", "x.npz"):
        header = b"\x93NUMPY\x01\x00" if name == "x.npy" else b"PK\x03\x04"
        (tmp_path / name).write_bytes(header + content)
        ends_well(array_shape, tmp_path / name)
        ends_well(read_array, tmp_path / name)


@LAW
@given(text=LINES | VALUES.map(lambda value: yaml.safe_dump(value, allow_unicode=True)))
def test_any_yaml(file, text):
    ends_well(parse_yaml, text, "x.yaml")
    file.write_text(text)
    document = ends_well(read_document, file)
    if document is not None:
        ends_well(resolve, document, file, {}, Path("runs"))


@LAW
@given(body=VALUES, command=st.lists(WORDS, max_size=3) | WORDS)
def test_any_recipe(file, body, command):
    stages = {"a": {"command": command, "inputs": body}, "b": body}
    for document in (
        {"stages": stages},
        {"stages": {"a": stages["a"]}, "vars": body},
        {"stages": body, "groups": body},
    ):
        file.write_text(yaml.safe_dump(document, allow_unicode=True))
        read = ends_well(read_document, file)
        if read is not None:
            ends_well(resolve, read, file, {}, Path("runs"))


# values and texts


@LAW
@given(value=VALUES)
def test_any_value(value):
    assert len(shown(value)) <= 40
    texts = caption_texts(value)
    assert texts is None or all(text == clean_caption(text) for text in texts)
    ends_well(split_name, value, "x", fail)
    ends_well(check_trusted, value, "x")
    assert caption_texts(json.dumps(value)) is not None
    for one in (value, [value], {"a": [["b.png", "c", value]]}):
        clean(read_annotations(one, Path("x"), [].append))
    if isinstance(value, dict):
        renamed_options(value)
        renamed_data_options(value)
        renamed_checkpoint({"inference": value, "hyper_parameters": value})


@LAW
@given(text=WORDS | LINES)
def test_any_text(text):
    split_words(text)
    tokens = tokenize_caption(text)
    assert "\n" not in tokens
    assert clean_caption(clean_caption(text)) == clean_caption(text)
    assert slashes(slashes(text)) == slashes(text)
    for parse in (label_list, emotion_list):
        found = parse(text, ",") if parse is label_list else parse(text)
        assert found is None or all(isinstance(one, str) for one in found)
    assert isinstance(dashed(text), str)
    assert isinstance(tidy(text), str)
    assert renamed_metric(renamed_metric(text)) == renamed_metric(text)
    assert renamed_tensor(renamed_tensor(text)) == renamed_tensor(text)
    ends_well(read_texts, text, "x", Path("x"))


@LAW
@given(words=st.lists(WORDS | st.sampled_from(["--config", "--data.x", "fit", *OLD]), max_size=6))
def test_any_command_line(words):
    assert all(isinstance(name, str) for name in config_files(words))
    assert all(name.startswith("--") for name, _ in options(words))
    option_values(words, "--config")
    with NewNames() as names:
        ends_well(names.arguments, [word for word in words if "\0" not in word])


@LAW
@given(text=st.text(max_size=6))
def test_any_number(text):
    with contextlib.suppress(ArgumentTypeError):
        assert positive(text) >= 1
    assert all(comma_list(text))


@LAW
@given(names=st.lists(st.text("abc", min_size=1, max_size=4).map(tuple), min_size=1, max_size=5, unique=True))
def test_names_of_runs_are_unique_ends(names):
    folders = [Path("/runs", *parts) for parts in names]
    short = short_names(folders)
    assert len(set(short)) == len(short)
    assert all(str(folder).endswith(name) for folder, name in zip(folders, short, strict=True))


@LAW
@given(
    own_splits=st.lists(st.sampled_from(["train", "val", "test", "restval", None]), min_size=1, max_size=20),
    fractions=st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)),
    seed=st.integers(0, 5),
)
def test_any_split(own_splits, fractions, seed):
    keys = [f"k{n}" for n in range(len(own_splits))]
    found = ends_well(assign_splits, keys, own_splits, fractions, seed, "x")
    if found is not None:
        assert set(found) <= {"train", "val", "test"}
        assert all(own in (was, "val", "test") for own, was in zip(found, own_splits, strict=True) if was == "train")
        kept = [(own, was) for own, was in zip(found, own_splits, strict=True) if was in ("val", "test")]
        assert all(own == was for own, was in kept)


# what a writer writes comes back


@LAW
@given(value=nested(st.none() | st.booleans() | st.integers() | SENTENCES))
def test_json_and_yaml_come_back(value):
    assert parse_json(json.dumps(value), "x") == value
    assert parse_json(json.dumps(value, ensure_ascii=False), "x") == value
    if not isinstance(value, str):  # a text is itself, as on a command line
        assert yaml.safe_load(as_text(value)) == value


@LAW
@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=2, max_size=5))
def test_tables_come_back(rows):
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["image", "caption"], *rows])
    found = [cells for _, cells in table_cells(buffer.getvalue(), Path("x"))]
    assert found[1:] == [row for row in rows if any(cell.strip() for cell in row)]


@LAW
@given(images=st.dictionaries(FILES, st.lists(SENTENCES, min_size=1, max_size=3), min_size=1, max_size=4))
def test_captions_come_back_from_every_format(file, images):
    coco = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(images)],
        "annotations": [{"image_id": n, "caption": text} for n, texts in enumerate(images.values()) for text in texts],
    }
    karpathy = {
        "images": [{"filename": name, "sentences": [{"raw": text} for text in texts]} for name, texts in images.items()]
    }
    lines = "\n".join(json.dumps({"image": name, "captions": texts}) for name, texts in images.items())
    for text in (json.dumps(coco), json.dumps(karpathy), lines):
        file.write_text(text, "utf-8")
        found = {record.image_name: list(record.captions) for record in read_records(file)}
        # a caption that is itself a JSON list is one
        assert found == {
            name: [t for text in texts for t in caption_texts(text) or []] for name, texts in images.items()
        }


@LAW
@given(rows=st.lists(FIGURES, min_size=1, max_size=6))
def test_metrics_come_back(tmp_path, rows):
    path = tmp_path / "metrics.csv"
    path.unlink(missing_ok=True)
    logger = CSVFile(tmp_path)
    for step, row in enumerate(rows):
        logger.log_metrics(row, step)
    logger.save()
    _, found = read_metric_rows(path)
    assert [int(row.pop("step")) for row in found] == list(range(len(rows)))
    assert [{name: float(cell) for name, cell in row.items() if cell} for row in found] == rows


@LAW
@given(captions=st.lists(WORDS, min_size=1, max_size=4), longest=st.integers(3, 9))
def test_tokenizers_come_back(captions, longest):
    built = ends_well(WordTokenizer.build, captions, 1, longest)
    if built is None:
        return
    again = tokenizer_from_spec(json.loads(json.dumps(built.spec())))
    for text in captions:
        ids = built.encode(text)
        assert again.encode(text) == ids
        assert len(ids) <= longest
        assert again.decode(ids).split() == split_words(text)[: longest - 2]
    assert math.isfinite(built.vocab_size)
