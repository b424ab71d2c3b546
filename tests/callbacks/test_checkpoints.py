"""A checkpoint is written whole or the old one stays."""

import contextlib
import errno
import io
import signal

import pytest
import torch

import callbacks.checkpoints as module
from callbacks.checkpoints import AtomicCheckpointIO
from core.errors import Interrupted, UserError


def test_round_trip_without_debris(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.arange(3)}}, path)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.arange(4)}}, path)
    assert len(torch.load(path, weights_only=True)["state_dict"]["w"]) == 4
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("[enforce fail at inline_container.cc:671] . x")],
)
def test_full_disk_leaves_the_previous_file(tmp_path, monkeypatch, error):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def fill_disk(checkpoint, file):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(module.torch, "save", fill_disk)
    with pytest.raises(UserError, match=r"last\.ckpt' cannot be written .*(no space left|disk is full).*is intact"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_signal_that_ends_a_write_is_no_full_disk(tmp_path, monkeypatch):
    class Stopped(io.BytesIO):
        def write(self, data):
            raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(module, "replacing", lambda *_, **__: contextlib.nullcontext(Stopped()))
    with pytest.raises(Interrupted):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(9)}}, tmp_path / "last.ckpt")


def test_a_best_file_from_after_the_checkpoint_does_not_stop_a_resume(tmp_path):
    """The run died between its first best.ckpt and the next last.ckpt, whose state knows of no best score yet."""
    (tmp_path / "best.ckpt").touch()
    saved = module.best_checkpoint(tmp_path, "val/loss").state_dict()
    assert saved["best_model_score"] is None
    resumed = module.best_checkpoint(tmp_path, "val/loss")
    resumed.load_state_dict(saved)
    assert resumed.best_model_score is None
    assert not resumed.best_k_models, "the validation is made once more and replaces the file"
