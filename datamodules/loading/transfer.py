"""Moving a batch to the device, and what the host must know of it."""

import torch
from lightning import LightningDataModule
from torch import Tensor

from core.batch import Batch
from networks.layers.sequences import known_on_host

ON_HOST = ("caption_ids", "caption_lengths", "image_index", "condition", "feature_mask")
"""Parts of a batch that networks ask for values, see `networks.layers.sequences.on_host`."""


class TransferredBatches(LightningDataModule):
    """A data module whose batches reach a GPU with what the host must know of them noted, so that it need not wait."""

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves a batch; on a CPU it is there already, and a look at each of its captions would take 2 % of a step."""
        if device.type == "cpu":
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        for name in ON_HOST:
            if isinstance(value := batch.get(name), Tensor):
                known_on_host(moved[name], value.tolist())  # type: ignore[literal-required]  # one of the batch's
        return moved
