"""Tables and pictures of labels: every label is found, missed or wrong, once."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console

from metrics.baselines.rows import PRIOR
from metrics.labels import per_label
from reporting import tables
from reporting.label_figures import label_sheet
from reporting.label_tables import (
    Verdict,
    image_table,
    label_table,
    verdict,
    verdicts_of,
)
from reporting.tables import evaluation_table

NAMES = ["sea", "ship", "sand", "dock"]


def test_each_label_is_in_one_place():
    item = verdict(7, [1, 0, 1, 0], [0.4, 0.9, 0.6, 0.1], NAMES, 0.5)
    assert item == Verdict(image_id=7, truth=("sea", "sand"), predicted=("ship", "sand"))
    assert (item.missed, item.wrong) == (("sea",), ("ship",))


def test_table_of_pictures_reads_back():
    labels = {"a,b.jpg": [1, 0, 0, 0], "c.jpg": [0, 0, 0, 0], "unseen.jpg": [1, 1, 1, 1]}
    items = verdicts_of(labels, {"a,b.jpg": [0.9, 0.8, 0, 0], "c.jpg": [0, 0, 0, 0]}, NAMES, 0.5)
    rows = list(csv.DictReader(io.StringIO(image_table(items))))
    assert [row["image_id"] for row in rows] == ["a,b.jpg", "c.jpg"]
    assert rows[0] == {"image_id": "a,b.jpg", "truth": "sea", "predicted": "sea; ship", "missed": "", "wrong": "ship"}
    assert set(rows[1].values()) == {"c.jpg", ""}


def test_table_of_labels_has_a_row_each_even_if_none_is_true():
    rows = per_label([[0.9, 0.1, 0.2, 0.3]], [[1, 0, 0, 0]], NAMES)
    table = list(csv.DictReader(io.StringIO(label_table(rows))))
    assert [row["label"] for row in table] == NAMES
    assert [row["average_precision"] for row in table] == ["1.0", "", "", ""]
    assert tables.label_table(rows).row_count == 4


@pytest.mark.parametrize("count", [1, 5])
def test_sheet_shows_pictures_and_at_most_ten_labels(count):
    many = Verdict(image_id="a", truth=(), predicted=tuple(f"label {place}" for place in range(30)))
    figure = label_sheet([np.zeros((8, 8, 3), np.float32)] * count, [many] * count)
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert len(texts) == 10 * count
    assert "... and 21 more" in texts


def printed(macro_ap):
    console = Console(file=io.StringIO(), width=100)
    bounds = {PRIOR: {"macro_ap": 0.14, "top1": 0.6, "micro_f1": 0.3}}
    console.print(
        evaluation_table("test", {"this model": {"macro_ap": macro_ap, "top1": 0.7, "micro_f1": 0.4}, **bounds})
    )
    return console.file.getvalue()


def test_score_table_has_the_prior_beside_and_marks_it_when_it_is_better():
    assert "not beaten" not in printed(0.2)
    assert "label prior  <- not beaten" in printed(0.1)
    assert "bleu" not in printed(0.2)
