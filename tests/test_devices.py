"""Every method on another device than the CPU: nothing is born on the wrong one, and the host hardly ever waits."""

import importlib

import pytest
import torch
from lightning import Trainer

from callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint
from callbacks.predictions import PredictionWriter
from callbacks.report import RunReport
from lightning_modules import METHODS
from tests.devices import DEVICE, Audited, CountWaits, DeviceAudit, DeviceError
from tests.flag_table import as_documented
from tests.flags import needed, of_options
from tests.twins import cases, make_data, predicts, read

CASES = [case for case in cases() if case.variant in ("", "stored")]
MOST_WAITS = 1
"""In a training step; the lengths of the captions are needed on the host."""


def callbacks_of(case):
    """The callbacks of a twin."""
    found = []
    for name in read(case.twin)["trainer"].get("callbacks", []):
        package, _, kind = name.rpartition(".")
        found.append(getattr(importlib.import_module(package), kind)())
    return found


def trainer_of(audit, folder, callbacks):
    """A trainer on the device, the last of whose callbacks counts waits."""
    count = CountWaits(audit)
    last = LastCheckpoint(folder / "last.ckpt", every_n_steps=None, minutes=10.0)
    trainer = Trainer(
        strategy=Audited(),
        callbacks=[*callbacks, last, count],
        plugins=[AtomicCheckpointIO()],
        max_steps=3,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        limit_test_batches=1,
        limit_predict_batches=1,
        gradient_clip_val=1.0,
        inference_mode=False,  # tensors made in it cannot be views of this device's
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
    )
    return trainer, count


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_is_on_the_device_and_a_step_waits_for_it_once(case, tmp_path):
    """A validation and a checkpoint are between the steps."""
    data = make_data(case.data, captions_per_image=2, num_val=3)
    module = of_options(case, data, **needed(case, data, tmp_path))
    with DeviceAudit() as audit:
        trainer, count = trainer_of(audit, tmp_path, [])
        trainer.fit(module, datamodule=data)
    assert len(count.steps) >= 1
    with as_documented(case, "one wait"):
        assert max(sum(waits.values()) for waits in count.steps) <= MOST_WAITS, count.steps


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_everything_else_is_on_the_device(case, tmp_path):
    """Callbacks of the experiment, test with its report, prediction."""
    data = make_data(case.data, captions_per_image=2)
    module = of_options(case, data, **needed(case, data, tmp_path))
    with DeviceAudit() as audit:
        trainer, count = trainer_of(audit, tmp_path, [*callbacks_of(case), PredictionWriter(), RunReport()])
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
        if predicts(case.method):
            trainer.predict(module, datamodule=data)
    assert max(sum(waits.values()) for waits in count.steps) <= MOST_WAITS, count.steps


def test_all_methods_are_audited():
    assert {case.method for case in CASES} == set(METHODS.values())


def test_the_audit_sees_what_it_is_for():
    with DeviceAudit() as audit:
        audit.counting = True
        there = torch.randn(3, device=DEVICE)
        with pytest.raises(DeviceError, match="tensors of the CPU"):
            there + torch.zeros(3)
        assert audit.waits == {}
        assert bool((there == there).all())
        there[there > 0].cpu()
        torch.zeros(3).to(DEVICE)
        torch.zeros(3).to(DEVICE, non_blocking=True)
    assert audit.waits == {
        "aten._local_scalar_dense.default": 1,
        "aten.index.Tensor": 1,
        "aten._to_copy.default": 2,
    }
