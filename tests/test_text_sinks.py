"""Nothing takes text of users for its own language: figures, tables, pages, loggers, files, errors.

The parts themselves are tested in `tests/core/test_text.py`; that there is no way round in `tests/test_one_way.py`.
"""

import csv
import io
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

import cli
from callbacks.report import RunReport
from commands import caption, label
from commands.comparison.metrics_table import print_comparison
from commands.data import _print_findings
from commands.score import print_table
from commands.score_files import write_table
from core.csv_files import protected, unprotected
from core.text import _OBEYED, visible
from datamodules.audit.checks import Findings
from datamodules.audit.distributions import Distribution
from datamodules.readers.records import Example, Problem
from metrics.bootstrap import Comparison, Pair
from metrics.captions import score_images
from metrics.names import METRICS, metric
from reporting import (
    comparison_figures,
    dashboards,
    data_figures,
    figures,
    label_figures,
    label_tables,
    pictures,
    sheets,
    tables,
)
from reporting.drawing import TextFigure
from reporting.label_tables import Verdict
from reporting.page import Card, Entry, Label, Page, render
from tests.conftest import ROOT
from tests.nasty import NASTY

IMAGE = np.full((8, 8, 3), 0.5, np.float32)
MAP = np.full((2, 2), 0.25, np.float32)
FOUND = Comparison(a=0.1, b=0.2, difference=0.1, low=0.05, high=0.15, p=0.01)

COUNTED = [
    Distribution(name=name, title=NASTY[0], counts=dict.fromkeys(NASTY, 1), total=len(NASTY), notes=NASTY[1])
    for name in ("width", "words")
]

# figures


DRAWN = (*NASTY[:5], "[/x]", *(text for text in NASTY if _OBEYED.search(text)))


VERDICTS = [Verdict(image_id=text, truth=DRAWN[place::4][:10], predicted=()) for place, text in enumerate(DRAWN[:4])]
POINTS = np.random.default_rng(0).normal(size=(len(DRAWN), 2)).astype(np.float32)
DRAWINGS = {
    "counts": lambda: data_figures.frequency_figure(DRAWN[0], dict.fromkeys(DRAWN, 1), DRAWN[1]),
    "bins": lambda: data_figures.histogram_figure(DRAWN[0], dict.fromkeys(DRAWN[:9], 1), DRAWN[1]),
    "codes": lambda: figures.code_sheet(POINTS, POINTS, DRAWN),
    "labels": lambda: label_figures.label_sheet([IMAGE] * 4, VERDICTS),
    "curves": lambda: comparison_figures.curve_figure(
        {text: {"a": [(0, 1.0), (1, 2.0)]} for text in DRAWN}, ["a", "$\\b"]
    ),
    "bars": lambda: comparison_figures.bar_figure(
        {text: {"bleu4": [0.1, 0.2]} for text in DRAWN}, ["bleu4"], {text: {"bleu4": 0.3} for text in DRAWN}
    ),
    "sweep": lambda: comparison_figures.sweep_figure({text: {1.0: [0.5]} for text in DRAWN}, "$\\frac{1$", "$\\x$ a_$"),
}


@pytest.mark.parametrize("name", list(DRAWINGS))
def test_figures_draw_text_as_it_stands(name, monkeypatch):
    def parse(*args, **kwargs):
        raise AssertionError(f"taken for a formula: {args[1:2]}")

    monkeypatch.setattr("matplotlib.mathtext.MathTextParser.parse", parse)
    monkeypatch.setitem(matplotlib.rcParams, "text.parse_math", True)
    figure = DRAWINGS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a font has no control characters
        figure.savefig(io.BytesIO(), format="png", dpi=30)
    shown = "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
    assert not _OBEYED.search(shown.replace("\n", ""))
    if name in ("codes", "curves", "bars", "sweep"):
        legend = next(iter(figure.legends), None) or figure.axes[0].get_legend()
        assert {visible(text, keep="\n") for text in DRAWN} <= {text.get_text() for text in legend.get_texts()}


@pytest.mark.parametrize("count", [1, 4])
def test_sheets_draw_text_as_it_stands(count):
    shown = sheets.caption_sheet([IMAGE] * len(DRAWN), DRAWN, DRAWN).texts
    shown += sheets.attention_sheet(IMAGE, DRAWN[::count], [MAP] * len(DRAWN[::count]), " ".join(DRAWN)).texts
    assert not _OBEYED.search("".join(shown).replace("\n", ""))
    assert {visible(text, keep="\n") for text in DRAWN[::count] if len(text) <= 18} <= set(shown)


def test_figures_go_into_their_folder_whatever_they_are_called(tmp_path):
    figure = TextFigure(figsize=(0.1, 0.1))
    for text in NASTY:
        path = pictures.save_figure(figure, tmp_path / "here", text)
        assert path.resolve().parent == tmp_path / "here"
        assert re.fullmatch(r"[\w.-]+\.png", path.name)


# the terminal


def test_tables_and_lines_of_commands(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    rows = {text: {"bleu4": 0.5, "cider_d": 0.1} for text in NASTY}
    examples = [(Example(image_id=text, image=None, captions=(text,), labels=(), split="test"), text) for text in NASTY]
    # names of runs are made visible when they are read
    spread = {visible(name): {key: [value] for key, value in row.items()} for name, row in rows.items()}
    label_rows = [
        {"label": text, "support": 1, "predicted": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0} for text in NASTY
    ]
    calls = [
        lambda: tables.print_table(tables.evaluation_table("x", {"this": {"bleu4": 0.1}, **rows})),
        lambda: tables.print_table(tables.label_table([{**row, "average_precision": None} for row in label_rows])),
        lambda: [tables.print_pair((text, text), {"bleu4": FOUND}, text) for text in NASTY],
        lambda: tables.print_flags(dict(zip(NASTY, NASTY, strict=True))),
        lambda: print_comparison("; ".join(NASTY), spread, spread, ["bleu4"]),
        lambda: print_table(rows),
        lambda: RunReport(captions=100)._print_captions(examples),
        lambda: _print_findings(
            Findings(
                splits={},
                problems=[Problem("file", text) for text in NASTY],
                notes=[*NASTY],
                distributions=COUNTED,
            ),
            0,
        ),
        lambda: [caption.show(Path(text), [(text, -1.0)], as_json=False) for text in NASTY],
        lambda: [caption.show(Path(text), [(text, -1.0), (text, -2.0)], as_json=False) for text in NASTY],
        lambda: [label.show(text, None, {text: 0.9}, threshold=0.5, top=None, as_json=False) for text in NASTY],
    ]
    for number, call in enumerate(calls):
        call()
        out = capsys.readouterr().out
        assert not _OBEYED.search(out.replace("\n", "")), number
        for text in NASTY:
            assert all(line.strip() in out for line in visible(text, keep="\n").split("\n")) or visible(text) in out, (
                number,
                text,
            )


def test_errors_are_one_line(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = [["caption", "--ckpt", "x"], [], ["resume"], ["score", "x"], ["test", "--ckpt_path"], ["recipe"]]
    for args in [[*command, text] for text in NASTY if text != "." for command in commands]:
        assert cli.main(args) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert not _OBEYED.search(err[:-1])


def test_json_of_commands_reads_back_the_same(capsys):
    for text in NASTY:
        caption.show(Path(text), [(text, -1.0)], as_json=True)
        label.show(text, text, {text: 0.9}, threshold=0.5, top=None, as_json=True)
        first, second = capsys.readouterr().out.splitlines()
        assert json.loads(first) == {"image": str(Path(text)), "captions": [{"caption": text, "log_prob": -1.0}]}
        assert json.loads(second)["labels"] == [text]


# the page


class Reader(HTMLParser):
    """Texts, tags and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.texts, self.tags, self.attributes = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_shows_every_text_and_has_no_other_tags():
    def page(texts):
        comparison = {text: {"bleu4": 0.5} for text in texts}
        cards = [
            Card(
                image_id=text,
                image=None,
                references=[text],
                labels=[Label(name=text, is_true=True)],
                entries=[
                    Entry(run=text, caption=text),
                    Entry(run=text, labels=[Label(name=text, is_true=False, probability=0.5)]),
                ],
            )
            for text in texts
        ]
        content = Page(
            title=texts[0],
            notes=texts,
            metrics=[metric("bleu4")],
            scores=comparison,
            baselines=comparison,
            flags=dict(zip(texts, texts, strict=True)),
            pairs=[Pair(a=text, b=text, scores={"bleu4": FOUND}) for text in texts],
            figures={text: TextFigure(figsize=(1, 1)) for text in texts[:1]},
            cards=cards,
            images=1,
        )
        reader = Reader()
        reader.feed(render(content))
        return reader

    plain, nasty = page(["a"]), page(NASTY)
    assert nasty.tags == plain.tags
    assert {name for name, _ in nasty.attributes} == {name for name, _ in plain.attributes}
    shown = [text.strip() for text in nasty.texts]
    titles = [value for name, value in nasty.attributes if name == "title"]
    for text in NASTY:
        seen = visible(text, keep="\n\t")
        assert shown.count(seen.strip()) >= 5, text
        assert seen in titles
    assert not _OBEYED.search("".join(nasty.texts).replace("\n", "").replace("\t", ""))


# loggers and files


@pytest.mark.filterwarnings("ignore:Glyph")
def test_loggers_get_visible_text(monkeypatch):
    sent = {}

    class Wandb(WandbLogger):
        def __init__(self):
            pass

        def log_image(self, key, images, step, caption):
            sent.setdefault("wandb", []).extend(caption)

    class Board(TensorBoardLogger):
        def __init__(self):
            pass

        experiment = type(
            "Writer",
            (),
            {
                "add_images": lambda self, *args, **kwargs: None,
                "_get_file_writer": lambda self: SimpleNamespace(add_summary=lambda *args: None),
                "add_text": lambda self, key, text, step: sent.update(board=text),
            },
        )()

    dashboards.log_captioned_images([Wandb(), Board()], "val", [IMAGE] * len(NASTY), NASTY, 1)
    assert sent["wandb"] == [visible(text) for text in NASTY]
    assert sent["board"].split("\n") == [f"    {visible(text)}" for text in NASTY], "lines of code in Markdown"
    sent.clear()
    for text in NASTY:
        dashboards.log_figure([Wandb(), Board()], "x", sheets.caption_sheet([IMAGE], [text], [text]).png(), 1, text)
    assert sent["wandb"] == [visible(text) for text in NASTY]


def test_tables_of_files_read_back_the_same(tmp_path):
    label_tables.write_tables(
        tmp_path,
        [Verdict(image_id=text, truth=(text,), predicted=(text,)) for text in NASTY],
        [{"label": text, "support": 1, "predicted": 1, "precision": -0.5} for text in NASTY],
    )
    plain = {f"{number}": text for number, text in enumerate(NASTY)}
    write_table(tmp_path / "scores.csv", score_images(plain, {key: [text] for key, text in plain.items()}), plain)
    for name, column in (("labels.csv", "truth"), ("per_label.csv", "label"), ("scores.csv", "caption")):
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        readable = [text.encode("utf-8", "backslashreplace").decode() for text in NASTY]
        assert [unprotected(row[column]) for row in rows] == readable, name
        assert not [row for row in rows if row[column][:1] in tuple("=+-@\t\r")], name


# templates and names of ours


def test_templates_switch_no_escaping_off():
    for path in (ROOT / "reporting" / "templates").glob("*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"\|\s*safe|autoescape|=\s*\{\{", text), "no raw text, no attribute without quotes"
        for script in re.findall(r"<script.*?</script>", text, re.DOTALL):
            assert all("tojson" in found for found in re.findall(r"\{\{.*?\}\}", script))


def test_names_of_metrics_are_no_formulas():
    names = [text for item in METRICS for text in (item.key, item.title)]
    assert not [name for name in names if visible(name) != name or protected(name) != name]
