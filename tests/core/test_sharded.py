"""Checkpoints in parts: what two processes wrote is put together; what is missing, damaged or hostile is one line."""

import os
import pickle
import random
import shutil

import pytest
import torch

import cli
from core.checkpoints import check_values, find_checkpoint, load_values, read_checkpoint
from core.errors import UserError
from core.sharded import FACTS, LIST, NOTE, note_list
from tests.commands.jobs.made import make_runs, small_scenes
from tests.parts import write_parts

PARTS = ("__0_0.distcp", "__1_0.distcp")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A captioner in a file, and the same in parts as a run folder has it."""
    folder = make_runs(tmp_path_factory.mktemp("runs"))
    checkpoint = torch.load(folder / "captioner.ckpt", weights_only=True)
    checkpoint["state_dict"] |= {"scalar": torch.tensor(3)}  # parts hold what cannot be divided, too
    optimizer = {"state": {"w": torch.arange(4.0)}, "groups": [{"lr": 0.1}]}
    parts = write_parts(checkpoint, folder / "run" / "checkpoints" / "best.ckpt", optimizer)
    del checkpoint["state_dict"]["scalar"]
    torch.save(checkpoint, folder / "captioner.ckpt")
    return folder, parts


@pytest.fixture
def whole(runs):
    return runs[1]


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copied.ckpt")


def test_the_parts_are_the_checkpoint(runs, whole):
    assert {path.name for path in whole.iterdir()} == {LIST, FACTS, NOTE, *PARTS}
    expected, found = read_checkpoint(runs[0] / "captioner.ckpt"), read_checkpoint(runs[0] / "run")
    assert found["state_dict"].pop("scalar") == 3
    assert {**found, "state_dict": 0} == {**expected, "state_dict": 0}
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor), name
    assert find_checkpoint(runs[0] / "run") == whole
    check_values(whole)


@pytest.mark.parametrize("missing", [LIST, FACTS, *PARTS])
def test_a_missing_part_is_named(copy, missing, tmp_path, capsys):
    (copy / missing).unlink()
    small_scenes().open_image(small_scenes().examples("test")[0]).save(tmp_path / "a.png")
    for words in (["caption", "--ckpt", str(copy), str(tmp_path / "a.png")], ["export", str(copy), "--out", "x"]):
        assert cli.main(words) == 1
        error = capsys.readouterr().err
        assert f"its part '{missing}' is missing; copy the folder whole" in error
        assert error.count("\n") == 1
    with pytest.raises(UserError, match="is missing"):
        check_values(copy)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_cut_off_is_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-300])
    with pytest.raises(UserError, match=f"its part '{name}' is cut off"):
        check_values(copy)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    weights = {"w": torch.arange(300.0).view(30, 10), "b": torch.arange(7), "s": torch.tensor(2.0)}
    folder = tmp_path_factory.mktemp("small") / "x.ckpt"
    return write_parts({"state_dict": weights, "inference": {}}, folder, {"lr": 0.1})


def test_a_flipped_bit_is_noticed_or_changes_nothing(small, tmp_path):
    copy = shutil.copytree(small, tmp_path / "copied.ckpt")
    expected, drawn, noticed = load_values(small)["state_dict"], random.Random(0), 0
    for _ in range(90):
        path = copy / drawn.choice([LIST, *PARTS])
        content = path.read_bytes()
        changed = bytearray(content)
        changed[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        path.write_bytes(changed)
        try:
            found = load_values(copy)["state_dict"]
        except UserError:
            noticed += 1
        else:
            assert found.keys() == expected.keys()
            assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
        path.write_bytes(content)
    assert noticed > 50  # the others are in what an optimiser noted, or in gaps


class Hostile:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_is_executed(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (copy / NOTE).unlink()
    content = (copy / LIST).read_bytes()
    (copy / LIST).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match="it names "):
        load_values(copy)
    (copy / LIST).write_bytes(content)
    torch.save(Hostile(), copy / FACTS)
    with pytest.raises(UserError, match="holds more than plain values"):
        load_values(copy)
    assert not (tmp_path / "executed").exists()


def test_what_an_optimiser_noted_is_not_executed_either(runs, tmp_path, monkeypatch):
    """Nothing here reads it, but PyTorch does when a run is resumed."""
    monkeypatch.chdir(tmp_path)
    checkpoint = {"state_dict": {"w": torch.arange(4.0)}, "inference": {}}
    folder = write_parts(checkpoint, tmp_path / "x.ckpt", {"groups": Hostile()})
    load_values(folder)
    with pytest.raises(UserError, match="holds more than plain values"):
        check_values(folder)
    assert not (tmp_path / "executed").exists()


def test_a_list_that_claims_much_is_refused(copy):
    listed = pickle.loads((copy / LIST).read_bytes())
    entry = next(entry for name, entry in listed.state_dict_metadata.items() if name.startswith("model."))
    entry.size = torch.Size([1 << 40, *entry.size[1:]])
    (copy / LIST).write_bytes(pickle.dumps(listed))
    note_list(copy)
    with pytest.raises(UserError, match="claim more bytes than its parts have"):
        load_values(copy)


def test_commands_take_the_parts(runs, tmp_path, capsys):
    small_scenes().open_image(small_scenes().examples("test")[0]).save(tmp_path / "a.png")
    (run := tmp_path / "run").mkdir()
    checkpoint = torch.load(runs[0] / "captioner.ckpt", weights_only=True)
    write_parts(checkpoint, run / "checkpoints" / "best.ckpt")
    printed = []
    for path in (runs[0] / "captioner.ckpt", run):
        assert cli.main(["caption", "--ckpt", str(path), str(tmp_path / "a.png"), "--json"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert cli.main(["export", str(run), "--out", str(tmp_path / "exported")]) == 0
    exported = read_checkpoint(tmp_path / "exported")["state_dict"]
    assert all(torch.equal(exported[name], tensor) for name, tensor in checkpoint["state_dict"].items())
