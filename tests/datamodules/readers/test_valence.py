"""Every label of Socratis has one valence, which the page tells as the code does."""

import re

import pytest

from datamodules.readers.socratis_cleaning import EMOTIONS
from datamodules.readers.valence import VALENCE_OF, VALENCES, valence
from tests.conftest import ROOT


def test_every_label_has_a_valence():
    assert set(VALENCE_OF) == set(EMOTIONS)
    assert set(VALENCE_OF.values()) == set(VALENCES)


def test_the_page_has_the_same_table():
    page = (ROOT / "docs" / "emotional_captions.md").read_text()
    rows = dict(re.findall(rf"^\| ({'|'.join(VALENCES)}) \| ([a-z, ]+) \|$", page, re.MULTILINE))
    told = {name: row for row, names in rows.items() for name in names.split(", ")}
    assert told == VALENCE_OF


@pytest.mark.parametrize("name", EMOTIONS)
def test_one_emotion_has_its_own_and_its_opposite_cancels_it(name):
    own = VALENCE_OF[name]
    assert valence([name]) == own
    assert valence([name, "curious"]) == own  # which is mixed
    assert valence([name, "curious", {"positive": "sad", "negative": "happy"}.get(own, "neutral")]) == "mixed"
