"""Every metric is named once, and old names are read."""

import pytest

from core.renamed import METRICS as RENAMED
from metrics import captions, label_bootstrap, retrieval
from metrics.character_bleu import character_bleu
from metrics.labels import label_scores
from metrics.names import METRICS, column_keys, deciding_key, main_keys, metric, report_keys
from tests.lightning_modules.boards import BOARDS

KEYS = [item.key for item in METRICS]


def test_keys_and_titles_are_unique():
    assert len(set(KEYS)) == len(KEYS)
    assert len({item.title for item in METRICS}) == len(KEYS)
    ranks = [(item.kind, item.rank) for item in METRICS if item.rank]
    assert len(set(ranks)) == len(ranks)


def test_what_is_computed_has_a_line():
    computed = {*captions.SCORES, *label_bootstrap.SCORES, *(f"recall_at_{k}" for k in retrieval.KS)}
    assert computed <= set(KEYS)


def test_what_is_not_better_when_higher_says_so():
    """Everything that a loss or a setting is; a new line with another direction has to be named here."""
    directions = {item.key: item.direction for item in METRICS if item.direction != "max"}
    assert directions == {
        "loss": "min",
        "as_published/loss_padded": "min",
        "perplexity": "min",
        "attention_entropy": "none",
        "grad_norm": "none",
        "sample_length": "none",
        "threshold": "none",
        "labels_without_positives": "none",
    }


def test_figures_of_labels_and_characters_have_a_line():
    found = (
        label_scores([[0.9, 0.2]], [[1, 0]], prior=[0.5, 0.5]).keys() | character_bleu({"1": "a"}, {"1": ["a"]}).keys()
    )
    assert found <= set(KEYS)


@pytest.mark.parametrize("twin", BOARDS)
def test_tables_of_every_method_have_a_column(twin):
    """Else its baselines are rows without a figure. Codes have one in reports and comparisons alone."""
    assert column_keys(BOARDS[twin].scores)
    assert report_keys(BOARDS[twin].scores) or not BOARDS[twin].baselines


def test_no_old_name_is_left():
    assert not set(RENAMED) & set(KEYS)
    assert set(RENAMED.values()) <= set(KEYS)


def test_order_is_that_of_the_lines():
    present = ["macro_ap", "cider_d", "bleu4", "recall_at_1", "lift_over_prior", "my_metric", "loss"]
    assert column_keys(present) == ["bleu4", "cider_d", "macro_ap", "lift_over_prior", "recall_at_1"]
    assert report_keys(present) == ["bleu4", "cider_d", "macro_ap"]
    assert main_keys(present) == ["cider_d", "bleu4", "macro_ap", "recall_at_1"]


def test_each_kind_is_decided_by_what_chooses_its_best_checkpoint():
    assert deciding_key(["rouge_l", "cider_d", "bleu4"]) == "cider_d"
    assert deciding_key(["top1", "macro_ap"]) == "macro_ap"
    assert deciding_key(["recall_at_5", "recall_at_1"]) == "recall_at_1"
    assert deciding_key(["bleu4", "loss"]) == "bleu4"  # of a text autoencoder


def test_best_follows_the_direction():
    assert metric("loss").best([1.0, 2.0]) == 1.0
    assert metric("my_metric").best([1.0, 2.0]) == 2.0
    assert metric("bleu4").best([]) is None
    assert (metric("bleu4").format(0.1234), metric("bleu4").format(None)) == ("0.123", "")
