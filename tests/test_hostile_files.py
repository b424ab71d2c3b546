"""Every damaged file, in every reader: one line that names it, in bounded time and memory, or what was meant."""

import gzip
import json
import pickle
import random
import resource
import time
from functools import partial

import pytest
import torch

from core.errors import DataError, UserError, user_message
from datamodules.readers.tags import read_tags
from datamodules.readers.unpacking import unpack
from datamodules.shards.index import scan
from tests.hostile_containers import ALL, DOCUMENTS_OF_ALL, STUDY, embedded, picture, reader, source, tags
from tests.hostile_damage import DAMAGES, WRONG, wrong_documents
from tests.hostile_parquet import forgeries as forged_tables
from tests.hostile_readers import checkpoint
from tests.hostile_tars import forgeries as forged_archives

SECONDS, MEGABYTES, CHARACTERS = 10, 700, 1500
LIBRARIES_ADVICE = ("weights_only", "trust_remote_code", "allow_pickle", "Traceback")
SERVED = ("inference", "hyper_parameters")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTION_CACHE", str(tmp_path / "cache"))


def outcome(read, folder, name):
    """What is wrong with how a reader takes a file: nothing, when it reads it or ends in one line that names it."""
    start = time.process_time()
    try:
        read(folder)
        message = None
    except BaseException as error:
        message = user_message(error)
        if message is None:
            return f"{type(error).__name__}: {error}"[:300]
    took = time.process_time() - start
    if took > SECONDS:
        return f"took {took:.1f} s"
    if message is None:
        return None
    if name not in message and folder.name not in message:
        return f"does not name the file: {message[:300]}"
    if "\n" in message or len(message) > CHARACTERS:
        return f"is no line, or a very long one: {message[:300]!r}"
    found = [words for words in LIBRARIES_ADVICE if words in message]
    return f"repeats {found}" if found else None


def most_memory():
    """Most resident memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def damages_of(one):
    """All; fewer for what takes long."""
    few = ("cut at 30 %", "a thousand bits", "NULs at its end", "random", "a pipe", "a device", "a folder")
    return {kind: DAMAGES[kind] for kind in few} if one is STUDY else DAMAGES


@pytest.mark.parametrize("one", [*ALL, STUDY], ids=str)
def test_damage_is_one_line_or_read(one, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    one.make(whole)
    one.read(whole)
    before, wrong = most_memory(), {}
    for number, (kind, damage) in enumerate(damages_of(one).items()):
        folder = tmp_path / f"damaged{number:02d}"
        folder.mkdir()
        one.make(folder)
        (file,) = folder.glob(one.file)
        damage(file)
        found = outcome(one.read, folder, file.name)
        if found is not None:
            wrong[kind] = found
    assert not wrong, "\n".join(f"{kind}: {found}" for kind, found in wrong.items())
    assert most_memory() - before < MEGABYTES


@pytest.mark.parametrize("name", DOCUMENTS_OF_ALL)
def test_values_of_other_kinds_are_one_line_or_read(name, tmp_path):
    one, wrong = reader(name), {}
    one.make(tmp_path)
    (file,) = tmp_path.glob(one.file)
    for change, document in wrong_documents(DOCUMENTS_OF_ALL[name]):
        file.write_text(json.dumps(document))
        found = outcome(one.read, tmp_path, file.name)
        if found is not None:
            wrong[change] = found
    assert not wrong, "\n".join(f"{change}: {found}" for change, found in wrong.items())


@pytest.mark.parametrize("share", [10, pytest.param(None, marks=pytest.mark.slow)])
def test_a_checkpoint_of_other_values_is_one_line_or_read(share, tmp_path):
    one, wrong = reader("checkpoint to serve"), {}
    for entry in SERVED:
        values = (None, "x", [], -1, {"a": 1}) if share else WRONG
        changes = list(wrong_documents(checkpoint()[entry], values))
        for change, document in random.Random(0).sample(changes, share) if share else changes:
            torch.save({**checkpoint(), entry: document}, tmp_path / one.file)
            found = outcome(one.read, tmp_path, one.file)
            if found is not None:
                wrong[f"{entry} {change}"] = found
    assert not wrong, "\n".join(f"{change}: {found}" for change, found in wrong.items())


class Runs:
    """Would open a file for writing if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_never_executed(tmp_path):
    """What would run when it is unpickled, in every file that torch or NumPy could take for one."""
    runs = Runs(tmp_path / "executed")
    for one in ALL:
        folder = tmp_path / one.name.replace(" ", "_")
        folder.mkdir()
        one.make(folder)
        (file,) = folder.glob(one.file)
        file.write_bytes(pickle.dumps({"state_dict": runs, "x": runs}))
        assert outcome(one.read, folder, file.name) is None, one.name
    assert not (tmp_path / "executed").exists()


def wrong_with(forged, read, folder, name):
    """What is wrong with how forged files are read; each is called the same, in a folder of its own."""
    wrong = {}
    for number, (kind, content) in enumerate(forged):
        place = folder / f"forged{number:03d}"
        place.mkdir()
        (place / name).write_bytes(content)
        found = outcome(read, place, name)
        if found is not None:
            wrong[kind] = found
    return "\n".join(f"{kind}: {found}" for kind, found in wrong.items())


def three_tags():
    return tags().drop_columns("error")


@pytest.mark.parametrize(
    ("table", "read"),
    [(three_tags, lambda folder: read_tags(folder / "x.parquet")), (embedded, source("x.parquet"))],
    ids=["tags", "pictures"],
)
def test_a_forged_table_is_one_line_or_read(table, read, tmp_path):
    before = most_memory()
    assert not wrong_with(forged_tables(table(), Runs(tmp_path / "executed")), read, tmp_path, "x.parquet")
    assert not (tmp_path / "executed").exists()
    assert most_memory() - before < MEGABYTES


def unpacked(folder):
    """What is unpacked stays below its folder, and is files."""
    root = folder / "some" / "root"
    root.mkdir(parents=True)
    unpack(folder / "x.tar", root)
    others = [path for path in tmp_files(folder) if root not in path.parents and path.name != "x.tar"]
    assert not others


def tmp_files(folder):
    return [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


@pytest.mark.parametrize(
    ("read", "change"),
    [
        (source("x.tar"), bytes),
        (lambda folder: scan(folder / "x.tar"), bytes),
        (unpacked, partial(gzip.compress, mtime=0)),
    ],
    ids=["pictures", "shard", "unpacked"],
)
def test_a_forged_archive_is_one_line_or_read(read, change, tmp_path):
    before = most_memory()
    forged = ((kind, change(content)) for kind, content in forged_archives(picture()))
    assert not wrong_with(forged, read, tmp_path, "x.tar")
    assert most_memory() - before < MEGABYTES


def test_a_broken_header_is_not_the_end_of_an_archive(tmp_path):
    """`tarfile` would read what is before it and say nothing."""
    forged = dict(forged_archives(picture()))
    for kind in ("a broken header behind another", "half a header", "no end mark"):
        (tmp_path / "x.tar").write_bytes(forged[kind])
        for read in (source("x.tar"), lambda folder: scan(folder / "x.tar")):
            with pytest.raises(DataError, match=r"x\.tar cannot be read as .*(header|end mark)"):
                read(tmp_path)


def test_the_helpers_change_what_they_say(tmp_path):
    for kind, damage in DAMAGES.items():
        path = tmp_path / "file"
        path.write_bytes(b"[1]\na \xff" * 300)
        before = path.read_bytes()
        damage(path)
        if path.is_file() and kind != "1 TB":
            assert path.read_bytes() != before, kind
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
    document = {"a": [1, 2]}
    changed = [json.dumps(one) for _, one in wrong_documents(document)]
    assert json.dumps(document) not in changed
    assert {'{"a": [1]}', '{"a": [null, 2]}', "{}", "null"} <= set(changed)


class RawError(UserError):
    """Says what it was given, with its line feeds and at any length."""

    __str__ = ValueError.__str__


def test_errors_of_users_are_one_line_of_bounded_length():
    assert str(UserError("a\nb")) == "a b"
    text = str(UserError("begin" + "x" * 10**6 + "end"))
    assert text.startswith("begin")
    assert text.endswith("end")
    assert len(text) <= CHARACTERS


def test_what_is_wrong_with_a_line_is_seen(tmp_path):
    def raising(error):
        def read(folder):
            raise error

        return read

    name = "x.csv"
    assert outcome(raising(UserError(f"{name}: bad")), tmp_path, name) is None
    assert "KeyError" in outcome(raising(KeyError("x")), tmp_path, name)
    assert "does not name" in outcome(raising(UserError("bad")), tmp_path, name)
    assert "no line" in outcome(raising(RawError(f"{name}\nbad")), tmp_path, name)
    assert "no line" in outcome(raising(RawError(name * CHARACTERS)), tmp_path, name)
    assert "repeats" in outcome(raising(UserError(f"{name}: set weights_only=False")), tmp_path, name)
