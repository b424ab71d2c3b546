from pathlib import Path

import pytest

from core.errors import DataError
from datamodules.readers.frames import read_frame


def test_rows_have_the_line_on_which_they_end():
    frame = read_frame('\n\na,b \n"x\ny",1\r\n\nz,NA\n"",\nq\n', Path("t.csv"))
    assert list(frame.columns) == ["a", "b"]
    assert frame.index.tolist() == [5, 7, 9]
    assert frame.to_numpy().tolist() == [["x\ny", "1"], ["z", "NA"], ["q", ""]]


def test_cells_of_any_length_are_read():
    frame = read_frame("a\tb\n" + "x" * 200_000 + "\t1\n", Path("t.tsv"), "\t")
    assert len(frame.iloc[0, 0]) == 200_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a,b\n1,2\n1,2,3\n", "line 3"), ('a,b\n"1,2\n', "EOF inside string"), ("", "No columns"), ("\n", "No columns")],
)
def test_broken_tables_are_named_in_one_line(text, reason):
    with pytest.raises(DataError, match=rf"t\.csv: not a valid table \(.*{reason}.*\); check the separators") as caught:
        read_frame(text, Path("t.csv"))
    assert "\n" not in str(caught.value)
