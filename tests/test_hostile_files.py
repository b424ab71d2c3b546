"""Every damaged file, in every reader: one line that names it, in bounded time and memory, or what was meant."""

import json
import random
import resource
import time

import pytest
import torch

from core.errors import UserError, user_message
from tests.hostile_damage import DAMAGES, WRONG, wrong_documents
from tests.hostile_readers import DOCUMENTS, READERS, checkpoint, reader

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


@pytest.mark.parametrize("one", READERS, ids=str)
def test_damage_is_one_line_or_read(one, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    one.make(whole)
    one.read(whole)
    before, wrong = most_memory(), {}
    for number, (kind, damage) in enumerate(DAMAGES.items()):
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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_values_of_other_kinds_are_one_line_or_read(name, tmp_path):
    one, wrong = reader(name), {}
    one.make(tmp_path)
    (file,) = tmp_path.glob(one.file)
    for change, document in wrong_documents(DOCUMENTS[name]):
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


def test_a_pickle_is_never_executed(tmp_path):
    """What would run when it is unpickled, in every file that torch or NumPy could take for one."""
    import pickle

    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for one in READERS:
        folder = tmp_path / one.name.replace(" ", "_")
        folder.mkdir()
        one.make(folder)
        (file,) = folder.glob(one.file)
        file.write_bytes(pickle.dumps({"state_dict": Runs(), "x": Runs()}))
        assert outcome(one.read, folder, file.name) is None, one.name
    assert not (tmp_path / "executed").exists()


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
