"""Text is shown as it stands: printed, logged, in tables, bars and CSV files."""

import csv
import io
import json
import logging

import pandas as pd
import pytest

from core.csv_files import csv_text, protected, unprotected
from core.files import write_json, write_text
from core.terminal import PlainTable, print_table, say_styled, task_bar, with_bar
from core.text import _OBEYED, log_of, say, say_json, visible
from tests.nasty import NASTY


def test_what_is_visible_has_nothing_left_to_obey_and_ordinary_text_is_untouched():
    assert not any(_OBEYED.search(visible(text)) for text in NASTY)
    for text in ("a dog, 2 cats", "naïve Straße", "猫が座る", "שלום", "👩‍🚀", "C:\\new", ""):
        assert visible(text) == text


@pytest.mark.parametrize("err", [False, True])
def test_printed_lines_stay_lines(capsys, err):
    say(*NASTY, err=err)
    captured = capsys.readouterr()
    assert (captured.err if err else captured.out).split("\n") == [*map(visible, NASTY), ""]
    assert not (captured.out if err else captured.err)


def test_a_stream_that_cannot_write_a_letter_gets_its_number(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stream)
    say("naïve")
    assert stream.buffer.getvalue() == b"na\\xefve\n"


@pytest.mark.parametrize("indent", [None, 1])
def test_printed_json_reads_back_the_same(capsys, indent):
    say_json(list(NASTY), indent)
    out = capsys.readouterr().out
    assert json.loads(out) == list(NASTY)
    assert not _OBEYED.search(out.replace("\n", ""))


def test_logged_text_is_visible_and_names_its_caller(caplog):
    log = log_of("core.some")
    for text in NASTY:
        log.warning("%s: %d, %s", text, 1, text)
        log.warning(text)
    log.warning("%(a)s", {"a": "\x1b"})
    assert [record.getMessage() for record in caplog.records] == [
        *(line for text in NASTY for line in (f"{visible(text)}: 1, {visible(text)}", visible(text))),
        "\\x1b",
    ]
    assert {record.filename for record in caplog.records} == {"test_text.py"}
    log.info("not wanted: %s", "x")
    logging.getLogger("core.some").setLevel(logging.NOTSET)
    assert "not wanted" not in caplog.text


def test_tables_lines_and_bars_show_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for text in NASTY:
        shown = visible(text, keep="\n").split("\n")
        table = PlainTable(title=text)
        table.add_column(text)
        table.add_row(text)
        print_table(table)
        say_styled(text, "bold red")
        out = capsys.readouterr().out
        assert all(out.count(line) >= 3 for line in shown), text
        assert visible(text) in out.splitlines(), "the styled line stays one"
        assert not _OBEYED.search(out.replace("\n", ""))
        with task_bar() as bar:
            bar.add_task(text, total=1)
        assert list(with_bar([1, 2], text, 2)) == [1, 2]
        err = capsys.readouterr().err
        assert visible(text) in err
        assert not _OBEYED.search(err.replace("\n", ""))


def test_no_cell_is_a_formula_and_all_read_back_the_same(tmp_path):
    path = tmp_path / "x.csv"
    write_text(path, csv_text(["=head", "number", "text"], [(text, -0.5, "-0.5") for text in NASTY]))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+@\t\r\n\uff1d") or (cell[:1] == "-" and cell != "-0.5")]
    readable = [text.encode("utf-8", "backslashreplace").decode() for text in NASTY]
    assert [unprotected(row[0]) for row in rows] == ["=head", *readable]
    assert {tuple(row[1:]) for row in rows[1:]} == {("-0.5", "-0.5")}


def test_plain_tables_are_as_pandas_writes_them():
    table = pd.DataFrame({"a": ["x, y", "'tis", None], "b": [1.0, -2.5e-7, None], "c": [1, 2, 3]})
    cells = list(table.columns), list(table.itertuples(index=False))
    assert csv_text(*cells) == table.to_csv(index=False, lineterminator="\n")
    assert csv_text(*cells, "%.3f") == table.to_csv(index=False, lineterminator="\n", float_format="%.3f")


@pytest.mark.parametrize("number", ["-1", "+2", "-.5", "1e-3", "-1.5E+10"])
def test_numbers_stay_numbers(number):
    assert protected(number) == number


def test_files_hold_names_that_are_not_utf8(tmp_path):
    write_json(tmp_path / "x.json", list(NASTY))
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == list(NASTY)
