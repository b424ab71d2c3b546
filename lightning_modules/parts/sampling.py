"""Scheduled sampling (Bengio et al. 2015): in training a decoder reads some words of its own."""

from typing import Any

from lightning_modules.parts.mixin import Mixin


class SamplingOptions(Mixin):
    """A module whose decoder reads some of its own words in training.

    Args:
        scheduled_sampling: share of the words read that are the decoder's own, at the end of the schedule; 0: teacher
            forcing.
        scheduled_sampling_start: last epoch, from 0, without own words; -1: there are some in the first epoch.
        scheduled_sampling_epochs: epochs in which the share grows in equal steps; 0: it is whole from the start.
    """

    def __init__(
        self,
        *,
        scheduled_sampling: float = 0.0,
        scheduled_sampling_start: int = 0,
        scheduled_sampling_epochs: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scheduled_sampling = scheduled_sampling
        self.scheduled_sampling_start = scheduled_sampling_start
        self.scheduled_sampling_epochs = scheduled_sampling_epochs

    def sampling_share(self) -> float:
        """Share of the words read that are the decoder's own: in this epoch's training; 0 in evaluation."""
        if not self.training:
            return 0.0
        start, epochs = self.scheduled_sampling_start, self.scheduled_sampling_epochs
        return scheduled_share(self.scheduled_sampling, start, epochs, self.current_epoch)


def scheduled_share(share: float, start: int, epochs: int, epoch: int) -> float:
    """Share of own words in an epoch.

    Args:
        share: at the end of the schedule.
        start: last epoch without own words, where the share grows; the first epoch with them, where it does not.
        epochs: in which it grows in equal steps; 0: it is whole at once.
        epoch: counted from 0.

    >>> [scheduled_share(0.5, 0, 2, epoch) for epoch in range(4)]
    [0.0, 0.25, 0.5, 0.5]
    """
    if epoch < start or not share:
        return 0.0
    return share if epochs <= 0 else share * min(1.0, (epoch - start) / epochs)
