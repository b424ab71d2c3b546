"""The page of a comparison: every text is escaped, the best value is marked, what is not there is left empty."""

import re

import pytest
from PIL import Image

from metrics.bootstrap import Comparison, Pair
from metrics.names import metric
from reporting.page import Card, Entry, Label, Page, render, thumbnail

NASTY = "<script>alert('x')</script> & \"quoted\""


def page(**changes):
    content = {
        "title": NASTY,
        "notes": [NASTY],
        "metrics": [metric("bleu4"), metric("loss")],
        "scores": {"a": {"bleu4": 0.5, "loss": 2.0}, "b": {"bleu4": 0.25}},
        "baselines": {"constant caption": {"bleu4": 0.4}},
        "flags": {"b": NASTY},
    }
    return render(Page(**{**content, **changes}))


def test_every_text_is_escaped():
    card = Card(
        image_id=NASTY,
        image=None,
        references=[NASTY],
        labels=[Label(name=NASTY, is_true=True)],
        entries=[
            Entry(run=NASTY, caption=NASTY),
            Entry(run="b", labels=[Label(name=NASTY, is_true=False, probability=0.5)]),
        ],
    )
    comparison = Comparison(a=0.1, b=0.2, difference=0.1, low=0.05, high=0.15, p=0.01)
    text = page(cards=[card], images=1, pairs=[Pair(a=NASTY, b="b", scores={"bleu4": comparison})])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 10
    assert not re.search(r"https?://|@import|url\(|<link|\{\{|\{%", text)


def test_the_best_value_and_a_run_below_a_baseline_are_marked():
    text = page()
    assert re.findall(r'<td class="best">([^<]*)</td>', text) == ["0.500", "2.000"]
    assert re.search(r"<td>b&nbsp;<span title=[^>]*>▾</span></td><td>0.250</td><td></td>", text)
    assert "▾ b is below a baseline" in text


@pytest.mark.parametrize(("low", "high", "mark"), [(0.1, 0.3, "higher"), (-0.3, -0.1, "lower"), (-0.1, 0.1, "")])
def test_an_interval_without_zero_is_coloured(low, high, mark):
    comparison = Comparison(a=0.0, b=0.0, difference=0.0, low=low, high=high, p=0.5)
    text = page(pairs=[Pair(a="a", b="b", scores={"bleu4": comparison})])
    assert re.findall(r'class="(higher|lower)"', text) == ([mark] if mark else [])
    assert f"[{low:+.3f}, {high:+.3f}]" in text


def test_an_empty_caption_is_shown_as_such():
    card = Card(image_id="1", image=None, references=[], labels=[], entries=[Entry(run="a", score=0.5)])
    text = page(cards=[card], images=3)
    assert "1 of 3 images" in text
    assert "<i>(empty)</i>" in text
    assert '<span class="score" title="CIDEr-D of this image">0.50</span>' in text


def test_a_thumbnail_is_small():
    assert thumbnail(Image.new("RGBA", (2000, 1000))).startswith("data:image/jpeg;base64,")
    assert len(thumbnail(Image.new("RGB", (2000, 1000)))) < 3000
