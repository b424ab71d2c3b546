"""A checkpoint in parts is written whole or the old one stays."""

from types import SimpleNamespace

import pytest
import torch

from callbacks.checkpoints import save
from callbacks.sharded import writes_parts
from core.errors import UserError
from core.sharded import FACTS, LIST, is_sharded
from tests.distributed import CPUSharded


class Alone(CPUSharded):
    """The strategy of a run of one process, without a group of processes."""

    def __init__(self, weights):
        super().__init__(state_dict_type="sharded")
        self.weights = SimpleNamespace(named_parameters=lambda: [("w", weights)])

    @property
    def model(self):
        return self.weights

    def barrier(self, name=None):
        pass

    def reduce_boolean_decision(self, decision, all=True):  # noqa: A002 - as Lightning calls it
        return decision


class Writing:
    """A trainer that writes its step as parts, or ends before the last of them."""

    is_global_zero = True

    def __init__(self):
        self.strategy, self.step, self.error = Alone(torch.ones(3)), 0, None

    def save_checkpoint(self, path, weights_only):
        path.mkdir()
        (path / LIST).write_text(str(self.step))
        if self.error is not None:
            raise self.error
        (path / FACTS).write_text(str(self.step))


@pytest.fixture
def trainer():
    return Writing()


def step_of(path):
    assert is_sharded(path)
    steps = {(path / name).read_text() for name in (LIST, FACTS)}
    assert len(steps) == 1
    return int(steps.pop())


def test_the_name_means_the_new_parts_and_nothing_else_is_left(trainer, tmp_path):
    assert writes_parts(trainer)
    path = tmp_path / "last.ckpt"
    path.write_text("written by a run whose checkpoints are files")
    for trainer.step in range(1, 4):
        save(trainer, path)
        assert step_of(path) == trainer.step
        assert len(list(tmp_path.iterdir())) == 2, "the name and what it means"
    (tmp_path / "best.ckpt").mkdir()  # by plain Lightning
    save(trainer, tmp_path / "best.ckpt")
    assert step_of(tmp_path / "best.ckpt") == 3


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_old_parts_stay_when_something_happens(trainer, tmp_path, error):
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    for trainer.step in (1, 2):
        save(trainer, path)
    trainer.error, trainer.step = error, 3
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        save(trainer, path)
    if isinstance(error, OSError):
        assert "cannot be written (no space left on device): the previous 'last.ckpt' is intact" in str(caught.value)
    assert step_of(path) == 2
    trainer.error, trainer.step = None, 4
    save(trainer, path)
    assert step_of(path) == 4
    assert len(list(path.parent.iterdir())) == 2


def test_weights_that_are_no_numbers_are_not_saved(trainer, tmp_path):
    save(trainer, tmp_path / "last.ckpt")
    trainer.strategy.weights = SimpleNamespace(named_parameters=lambda: [("w", torch.tensor([1.0, float("nan")]))])
    trainer.step = 1
    with pytest.raises(UserError, match=r"the weights 'w' are not finite numbers: .*last\.ckpt is left as it was"):
        save(trainer, tmp_path / "last.ckpt")
    assert step_of(tmp_path / "last.ckpt") == 0
