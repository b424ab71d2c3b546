import hashlib
import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import DataError
from datamodules.readers import download
from datamodules.readers.download import Archive, check_free_space, fetch, missing_contents, prepare


@pytest.fixture
def server(file_server, monkeypatch):
    monkeypatch.setattr(download, "_CHUNK", 256)
    return file_server


DATA = bytes(range(256)) * 40
MD5 = hashlib.md5(DATA).hexdigest()


def make_zip(names, folder=""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(f"{folder}{name}", f"content of {name} " * 20)
    return buffer.getvalue()


@pytest.fixture
def archives(server):
    """A small COCO: two archives on the server."""
    contents = {
        "zips/val2017.zip": make_zip([f"{number}.jpg" for number in range(4)], "val2017/"),
        "annotations/annotations.zip": make_zip(["captions_val2017.json", "captions_train2017.json"], "annotations/"),
    }
    server.files.update(contents)
    expected = {
        "zips/val2017.zip": (("val2017", 4),),
        "annotations/annotations.zip": (("annotations/captions_val2017.json", 0),),
    }
    return [
        Archive(
            path=path, size=len(data), checksum=hashlib.md5(data).hexdigest(), unpacked=4096, contents=expected[path]
        )
        for path, data in contents.items()
    ]


def test_a_whole_file_in_one_go(server, tmp_path):
    server.files["a.bin"] = DATA
    seen = []
    fetch(
        f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA), MD5, lambda what, done, total: seen.append((done, total))
    )
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert seen[-2] == (len(DATA), len(DATA))
    assert server.requests == [None]


@pytest.mark.parametrize("known_size", [True, False])
def test_a_connection_that_breaks_is_continued_where_it_was(server, tmp_path, known_size):
    server.files["a.bin"] = DATA
    server.cuts = [1000, 0, 3000]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA) if known_size else None, MD5)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert server.requests == [None, "bytes=1000-", "bytes=1000-", "bytes=4000-"]


def test_an_interrupted_program_goes_on_later(server, tmp_path):
    server.files["a.bin"] = DATA

    def interrupt(what, done, total):
        if done >= 2048:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA), MD5, interrupt)
    assert not (tmp_path / "a.bin").exists()
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA), MD5)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert server.requests == [None, "bytes=2048-"]


@pytest.mark.parametrize("how", ["no ranges", "changed file"])
def test_when_going_on_is_impossible_the_file_is_fetched_anew(server, tmp_path, how):
    server.files["a.bin"] = DATA[::-1]
    server.cuts = [1000]
    server.codes = [200, *[503] * 20]
    with pytest.raises(DataError, match=r"cannot be reached .*1,000 bytes are kept, run the command again"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    server.codes = []
    server.files["a.bin"] = DATA
    server.ranges = how == "changed file"
    server.tag = '"two"'
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA), MD5)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_partial_file_that_is_too_long_is_thrown_away(server, tmp_path):
    server.files["a.bin"] = DATA
    for size in (len(DATA), None):
        (tmp_path / "a.bin.part").write_bytes(b"x" * (len(DATA) + 5))
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", size, MD5)
        assert (tmp_path / "a.bin").read_bytes() == DATA
        (tmp_path / "a.bin").unlink()


def test_a_file_that_is_there_is_checked_and_not_fetched(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA), MD5)
    assert server.requests == []
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_busy_servers_are_asked_again_and_wrong_addresses_are_not(server, tmp_path):
    server.files["a.bin"] = DATA
    server.codes = [503, 429]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA), MD5)
    assert len(server.requests) == 3
    with pytest.raises(DataError, match=r"/b\.bin: the server answers 404 .*--base-url"):
        fetch(f"{server.url}/b.bin", tmp_path / "b.bin")
    assert len(server.requests) == 4
    with pytest.raises(DataError, match=r"not an address .*--base-url"):
        fetch("nonsense", tmp_path / "b.bin")


def test_nobody_listening_is_one_clear_line(server, tmp_path):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"cannot be reached \(.*refused.*\); nothing was fetched"):
        fetch(f"{url}/a.bin", tmp_path / "a.bin")


def test_another_file_than_expected_is_refused(server, tmp_path):
    server.files["a.bin"] = DATA
    with pytest.raises(DataError, match=rf"has {len(DATA)} bytes, expected 7; it is another file"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", 7)
    wrong = hashlib.md5(b"").hexdigest()
    with pytest.raises(DataError, match=rf"checksum is {MD5}, expected {wrong}; the file was removed"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA), wrong)
    assert not any(path.suffix in (".bin", ".part") for path in tmp_path.iterdir())


def test_an_answer_of_unknown_length_stops_at_the_known_size(server, tmp_path):
    server.files["a.zip"], server.length = DATA, False
    fetch(f"{server.url}/a.zip", tmp_path / "a.zip", len(DATA))
    assert (tmp_path / "a.zip").read_bytes() == DATA
    with pytest.raises(DataError, match=r"sends more than 1000 bytes; check --base-url"):
        fetch(f"{server.url}/a.zip", tmp_path / "b.zip", 1000)
    assert (tmp_path / "b.zip.part").stat().st_size <= 1000


def test_prepare_fetches_unpacks_checks_and_cleans_up(server, archives, tmp_path):
    root = tmp_path / "data" / "coco"
    lines = prepare(root, archives, server.url)
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "val2017"]
    assert (root / "val2017" / "3.jpg").read_text().startswith("content of 3.jpg")
    assert [archives[0].checksum in lines[0], archives[1].checksum in lines[1]] == [True, True]
    requests = len(server.requests)
    assert prepare(root, archives, server.url) == ["val2017.zip: unpacked already", "annotations.zip: unpacked already"]
    assert len(server.requests) == requests


def test_prepare_fills_a_folder_that_lacks_files(server, archives, tmp_path):
    prepare(tmp_path, archives, server.url, keep_archives=True)
    assert (tmp_path / "val2017.zip").exists()
    (tmp_path / "val2017" / "2.jpg").unlink()
    assert missing_contents(tmp_path, archives[0]) == [f"{tmp_path / 'val2017'} has 3 of 4 files"]
    requests = len(server.requests)
    prepare(tmp_path, archives, server.url)
    assert missing_contents(tmp_path, archives[0]) == []
    assert len(server.requests) == requests  # the kept archive was used


def test_a_broken_archive_leaves_nothing_half_done(server, archives, tmp_path):
    data = bytearray(server.files["zips/val2017.zip"])
    data[60] ^= 1  # inside the first member: only its CRC tells
    server.files["zips/val2017.zip"] = bytes(data)
    archive = replace(archives[0], checksum=None)
    with pytest.raises(DataError, match=r"val2017\.zip: broken archive .*CRC.*removed, run the command again"):
        prepare(tmp_path, [archive], server.url)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="checksum is"):
        prepare(tmp_path, archives, server.url)


def test_an_archive_with_other_contents_is_named(server, archives, tmp_path):
    archive = replace(archives[0], contents=(("val2018", 4),))
    with pytest.raises(DataError, match=r"unpacked, but .*val2018 is missing"):
        prepare(tmp_path, [archive], server.url)


def test_interrupted_unpacking_is_done_again(server, archives, tmp_path):
    def interrupt(what, done, total):
        if what.startswith("unpacking") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, archives, server.url, progress=interrupt)
    assert not (tmp_path / "val2017").exists()
    prepare(tmp_path, archives, server.url)
    assert missing_contents(tmp_path, archives[0]) == []


def test_members_outside_of_the_root_stay_inside(server, archives, tmp_path):
    data = make_zip(["../../evil.txt", "val2017/1.jpg"])
    server.files["zips/val2017.zip"] = data
    archive = replace(archives[0], size=len(data), checksum=None, contents=(("val2017", 1),))
    prepare(tmp_path / "a" / "b", [archive], server.url)
    assert not (tmp_path / "evil.txt").exists()
    assert not (tmp_path / "a" / "evil.txt").exists()


def test_too_little_space_is_told_before_the_first_byte(server, archives, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    large = [replace(archives[0], size=2 * 10**9, unpacked=3 * 10**9), replace(archives[1], size=10**9, unpacked=10**9)]
    # largest at the end of the first: 2 + 3 GB; with archives kept the second adds 2 GB
    with pytest.raises(DataError, match=r"needs 5\.3 GB free, has 1\.0 GB; .*another --root"):
        prepare(tmp_path, large, server.url)
    with pytest.raises(DataError, match=r"needs 7\.3 GB free"):
        prepare(tmp_path, large, server.url, keep_archives=True)
    assert server.requests == []
    (tmp_path / "val2017.zip.part").write_bytes(b"x" * 1000)
    check_free_space(tmp_path, [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_keeps_what_is_there(server, tmp_path, monkeypatch):
    server.files["a.bin"] = DATA
    server.cuts = [1000]
    server.codes = [200, *[503] * 20]
    with pytest.raises(DataError):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    server.codes = []
    part = tmp_path / "a.bin.part"
    usual = type(part).open

    def full(path, *args, **kwargs):
        return usual(Path("/dev/full"), "wb") if path == part else usual(path, *args, **kwargs)

    monkeypatch.setattr(type(part), "open", full)
    with pytest.raises(DataError, match=r"a\.bin\.part: cannot be written \(No space left"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", len(DATA))
    monkeypatch.undo()
    assert part.stat().st_size == 1000
