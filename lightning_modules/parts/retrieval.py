"""Filling a captioner's bank of training captions when a checkpoint is written."""

import torch
from torch import Tensor

from core.errors import UserError
from datamodules.base import CaptionDataModule
from networks.captioners.base import Captioner


@torch.no_grad()
def fill_index(captioner: Captioner, data: CaptionDataModule, device: torch.device) -> None:
    """Encodes all training images with the present weights and fills the retrieval index.

    Args:
        captioner: with an index; its mode and torch's random state are left as they were.
        data: whose training split is taken, the same on every rank.
        device: device of the captioner.
    """
    assert captioner.retrieval_index is not None
    modes = {part: part.training for part in captioner.modules()}
    captioner.eval()
    states: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        for batch in data.plain_train_dataloader():
            for key in ("image", "features", "feature_mask"):
                if key in batch:
                    batch[key] = batch[key].to(device)
            state = captioner.similarity_state(captioner.encode(batch))
            assert state is not None, "a captioner with an index has a similarity state"
            states.append(state)
    encode = data.tokenizer.encode
    captions = [[encode(text)[1:-1] for text in example.captions] for example in data.examples("train")]
    captioner.retrieval_index.fill(torch.cat(states), captions)
    for part, training in modes.items():
        part.training = training


def check_retrieval(retrieval_images: int, beams: int, mbr_reranking: bool) -> None:
    """Makes sure that retrieved captions are used: only MBR reranking does.

    Raises:
        UserError: there is no reranking.
    """
    if not mbr_reranking or beams < 2:
        raise UserError(
            f"retrieval_images is {retrieval_images} with beams={beams} and "
            f"mbr_reranking={str(mbr_reranking).lower()}: set mbr_reranking to true and beams to 2 or more, or "
            "retrieval_images to 0"
        )
