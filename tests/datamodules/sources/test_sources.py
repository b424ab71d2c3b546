"""Sources of pictures: every kind gives the same pictures in a fixed order, any rows of them."""

import os
import pickle
import tarfile
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import DataError, UserError
from datamodules.readers.images import open_image
from datamodules.sources.find import find_source
from tests.datamodules.sources.made import NAMES, make_folder, make_lists, make_parquet, make_tar, picture


def pixels(source, rows=None):
    found = {}
    for raw in source.read(range(len(source)) if rows is None else rows):
        found[raw.name] = open_image(raw.content).tobytes()
    return found


def source(*paths):
    return find_source([str(path) for path in paths])


def test_a_folder_has_its_pictures_in_the_order_of_their_paths(tmp_path):
    make_folder(tmp_path)
    for other in (".hidden.png", "notes.txt", "sub/._c.jpg"):
        (tmp_path / other).write_bytes(b"x")
    found = source(tmp_path)
    assert list(pixels(found)) == sorted(NAMES)
    assert source(f"{tmp_path}/").digest() == found.digest()
    (tmp_path / "a.png").rename(tmp_path / "z.png")
    assert source(tmp_path).digest() != found.digest()


def test_lists_name_the_same_pictures_in_their_order(tmp_path, monkeypatch):
    expected = pixels(source(make_folder(tmp_path)))
    for path in make_lists(tmp_path):
        found = source(path)
        assert list(pixels(found)) == list(NAMES), path
        assert pixels(found) == expected
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    (elsewhere / "list.txt").write_text("sub/c.jpg\r\na.png")
    assert list(pixels(source(elsewhere / "list.txt"))) == ["sub/c.jpg", "a.png"]


def test_shards_have_the_pictures_of_all_files_whatever_the_groups_are(tmp_path):
    contents = [picture(number) for number in range(11)]
    ids = [f"id {number}" for number in range(11)]
    expected = dict(zip(ids, (open_image(content).tobytes() for content in contents), strict=True))
    files = [
        make_parquet(tmp_path / f"{first}.parquet", contents[first:last], ids[first:last], group)
        for first, last, group in ((0, 5, 2), (5, 6, 9), (6, 11, 3))
    ]
    found = source(*files)
    assert list(pixels(found).items()) == list(expected.items())
    assert source(tmp_path).digest() == found.digest()
    for start in range(11):
        for stop in range(start, 12):
            assert list(pixels(found, range(start, stop))) == ids[start:stop]


def test_tables_without_ids_call_pictures_by_file_and_row(tmp_path):
    make_parquet(tmp_path / "one.parquet", [picture(0), picture(1), picture(2)])
    assert list(pixels(source(tmp_path))) == ["one.parquet#0", "one.parquet#1", "one.parquet#2"]
    plain = pa.table({"jpg": [picture(3), None], "key": [7, None]})
    pq.write_table(plain, tmp_path / "plain.parquet")
    raw = list(source(tmp_path / "plain.parquet").read(range(2)))
    assert [(one.name, one.content) for one in raw] == [("7", picture(3)), ("plain.parquet#1", None)]


def test_tables_may_name_files_beside_them(tmp_path):
    make_folder(tmp_path / "images")
    table = pa.table({"image": [f"images/{name}" for name in NAMES]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert list(pixels(source(tmp_path / "x.parquet")).values()) == [
        open_image(tmp_path / "images" / name).tobytes() for name in NAMES
    ]


def test_archives_have_their_images_and_nothing_else(tmp_path):
    one = [("./a.png", picture(0)), ("a.json", b"{}"), ("b.PNG", picture(1)), ("._a.png", b"x")]
    make_tar(tmp_path / "0.tar", one)
    make_tar(tmp_path / "1.tar", [("a.png", picture(2))])
    with tarfile.open(tmp_path / "1.tar", "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found = source(tmp_path)
    expected = [open_image(picture(number)).tobytes() for number in range(3)]
    assert list(pixels(found).items()) == list(
        zip(("0.tar/a.png", "0.tar/b.PNG", "1.tar/a.png"), expected, strict=True)
    )
    assert list(pixels(found, range(1, 3))) == ["0.tar/b.PNG", "1.tar/a.png"]


def test_a_source_travels_to_other_processes(tmp_path):
    make_tar(tmp_path / "0.tar", [("a.png", picture(0)), ("b.png", picture(1))])
    found = source(tmp_path)
    assert pixels(pickle.loads(pickle.dumps(found))) == pixels(found)


def test_what_a_source_keeps_for_a_picture_is_little(tmp_path):
    counts = (200, 1200)
    for count in counts:
        make_tar(tmp_path / f"{count}.tar", ((f"{number:09d}.png", b"") for number in range(count)))
        (tmp_path / f"{count}.txt").write_text("".join(f"folder/{number:09d}.png\n" for number in range(count)))
    for ending in ("tar", "txt"):
        sizes = [len(pickle.dumps(source(tmp_path / f"{count}.{ending}"))) for count in counts]
        assert (sizes[1] - sizes[0]) / (counts[1] - counts[0]) < 100


def test_names_that_are_not_utf_8_become_text_and_are_found(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    make_folder(tmp_path / "pictures", [name])
    (tmp_path / "pictures" / "list.txt").write_bytes(b"caf\xe9.png\n")
    for path in (tmp_path / "pictures", tmp_path / "pictures" / "list.txt"):
        assert list(pixels(source(path))) == ["caf\\udce9.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["missing"], "there is no file or folder 'missing'"),
        (["empty"], "empty: no picture in it"),
        (["a.tar", "b.parquet"], "name those of one kind"),
        (["a.tar", "sub"], "several sources of different kinds"),
        (["empty.txt"], "empty.txt: names no picture"),
        (["nul.txt"], "nul.txt, line 2: has NUL bytes"),
        (["latin.csv"], "latin.csv: not UTF-8"),
        (["broken.csv"], "broken.csv: not a valid table"),
        (["columns.csv"], "no column for the image"),
        (["broken.jsonl"], "broken.jsonl, line 2: not valid JSON"),
        (["number.jsonl"], "number.jsonl, line 1: the picture is '5'"),
        (["long.txt"], "has a line of more than"),
        (["broken.parquet"], "broken.parquet cannot be read as a Parquet file"),
        (["broken.tar"], "broken.tar cannot be read as an uncompressed tar archive"),
        (["packed.tar"], "unpack it if it is compressed"),
        (["a.tar", "sub/a.tar"], "several are called a.tar"),
    ],
)
def test_what_is_no_source_is_said_in_a_line(tmp_path, monkeypatch, names, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "sub"):
        (tmp_path / folder).mkdir()
    make_tar(tmp_path / "a.tar", [("a.png", picture(0))])
    make_tar(tmp_path / "sub" / "a.tar", [("a.png", picture(0))])
    make_parquet(tmp_path / "b.parquet", [picture(0)])
    with tarfile.open(tmp_path / "packed.tar", "w:gz"):
        pass
    contents = {
        "empty.txt": b"",
        "nul.txt": b"a.png\na\0.png\n",
        "latin.csv": b"image\ncaf\xe9.png\n",
        "broken.csv": b'image\n"a.png"x\n',
        "columns.csv": b"one,two\n1,2\n",
        "broken.jsonl": b'{"image": "a.png"}\n{"image"\n',
        "number.jsonl": b'{"image": 5}\n',
        "long.txt": b"x" * (1 << 20),
        "broken.parquet": b"PAR1 no PAR1",
        "broken.tar": b"x" * 2000,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        find_source(names)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_cut_off_is_an_error_of_the_file(tmp_path):
    path = make_tar(tmp_path / "a.tar", [(f"{number}.png", picture(number)) for number in range(9)])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"a\.tar cannot be read"):
        source(path)


def test_rows_follow_one_another_without_gaps(tmp_path):
    found = source(make_folder(tmp_path, [f"{number:02d}.png" for number in range(10)]))
    places = [0, 3, 3, 9, 10]
    names = [name for start, stop in pairwise(places) for name in pixels(found, range(start, stop))]
    assert names == list(pixels(found))
