"""Throughput is logged by windows, and once in an epoch that is shorter than a window."""

from types import SimpleNamespace

import pytest
import torch

from callbacks.throughput import Throughput


@pytest.mark.parametrize(("batches", "expected"), [(3, [3]), (5, [5]), (7, [5]), (10, [5, 10])])
def test_every_epoch_is_logged(batches, expected):
    callback, logged = Throughput(every_n_steps=5), []
    trainer = SimpleNamespace(global_step=0, is_last_batch=False)
    trainer.loggers = [SimpleNamespace(log_metrics=lambda values, step: logged.append((step + 1, values)))]
    module = SimpleNamespace(device=torch.device("cpu"))
    batch = {"image_id": ["a", "b"], "caption_lengths": torch.tensor([3, 4, 5])}
    for epoch in range(2):
        callback.on_train_epoch_start(trainer, module)
        for index in range(batches):
            trainer.is_last_batch = index == batches - 1
            trainer.global_step += 1
            callback.on_train_batch_start(trainer, module, batch, index)
            callback.on_train_batch_end(trainer, module, None, batch, index)
        callback.on_validation_end(trainer, module)
        assert [step - epoch * batches for step, _ in logged[epoch * len(expected) :]] == expected
    for _, values in logged:
        assert 0 <= values["throughput/data_time_share"] <= 1
        assert values["throughput/tokens_per_s"] == pytest.approx(3 * values["throughput/captions_per_s"])
        assert values["throughput/captions_per_s"] == pytest.approx(1.5 * values["throughput/images_per_s"])
