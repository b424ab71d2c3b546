"""Checkpoint files: a flipped byte anywhere is noticed or changes nothing, and the intact one beside it is offered."""

import random

import pytest
import torch

from core.checkpoints import load_values, read_checkpoint
from core.errors import UserError

VALUES = {"inference": {"method": "x", "words": ["a"] * 300}, "state_dict": {"w": torch.arange(2000.0)}, "epoch": 3}


def same(one, other):
    weights = torch.equal(one["state_dict"]["w"], other["state_dict"]["w"])
    return weights and {**one, "state_dict": 0} == {**other, "state_dict": 0}


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save(VALUES, path)
    content, drawn, noticed = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        changed = bytearray(content)
        changed[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        path.write_bytes(changed)
        try:
            found = read_checkpoint(path)
        except UserError:
            noticed += 1
        else:
            assert same(found, VALUES)
    assert noticed > 270  # the others are in gaps between the parts, which nothing reads


def test_every_bit_of_the_weights_counts(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save(VALUES, path)
    content = path.read_bytes()
    start = content.index(VALUES["state_dict"]["w"].numpy().tobytes())
    for place in range(start, start + 8000, 97):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"its part 'x/data/0' is not what was written"):
            load_values(path)


def run(folder, broken, other=None, config=True):
    """A run folder with a broken checkpoint and, perhaps, another one."""
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(VALUES, folder / "checkpoints" / broken)
    if other is not None:
        torch.save(VALUES, folder / "checkpoints" / other)
    if config:
        (folder / "config.yaml").write_text("model: {}\n")
    path = folder / "checkpoints" / broken
    path.write_bytes(path.read_bytes()[:-100])
    return path


def test_the_intact_one_is_offered_with_its_command(tmp_path):
    broken = run(tmp_path / "a", "last.ckpt", "best.ckpt")
    with pytest.raises(UserError) as caught:
        load_values(broken)
    best = broken.with_name("best.ckpt")
    assert f"fit --config {tmp_path}/a/config.yaml --ckpt_path {best}" in str(caught.value)
    broken = run(tmp_path / "b", "best.ckpt", "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt' is intact: give that one"):
        load_values(broken)


def test_none_is_offered_where_there_is_none_that_is_whole(tmp_path):
    with pytest.raises(UserError, match="give another one, or train again"):
        load_values(run(tmp_path / "a", "last.ckpt"))
    broken = run(tmp_path / "b", "last.ckpt", "best.ckpt")
    broken.with_name("best.ckpt").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="give another one, or train again"):
        load_values(broken)


def test_a_checkpoint_in_the_old_format_of_torch_is_read(tmp_path):
    torch.save(VALUES, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / "x.ckpt"), VALUES)


def test_a_checkpoint_that_unpacks_to_more_than_it_has_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1 << 24))
    with pytest.raises(UserError, match="claims to unpack to 16,777,216 bytes"):
        read_checkpoint(tmp_path / "x.ckpt")
