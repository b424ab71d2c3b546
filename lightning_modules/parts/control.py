"""Captioners that a classifier of captions' labels guides in decoding, without being trained again.

Letters: B images.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from core.errors import UserError
from core.inputs import shown
from lightning_modules.loading import load_module
from lightning_modules.parts.condition import ConditionOptions
from lightning_modules.prefix_classifier import PrefixClassification
from networks.generation.control import Control

if TYPE_CHECKING:
    ConditionMixin = ConditionOptions
else:
    ConditionMixin = object  # see `lightning_modules.parts.mixin`


class ControlOptions(ConditionMixin):
    """A captioner whose captions get a label by decoding alone.

    Args:
        control: run of a prefix classifier, trained on captions with labels and the same vocabulary; None: none. It is
            asked for the same labels as the captioner itself, see `condition_on`.
        control_strength: weight of the classifier at every word, see `networks.generation.control`; 0: it does not
            guide.
        control_words: most probable words that it judges at each step.
        control_rerank: weight of the classifier in the choice among the captions of the beam search; 0: it does not
            choose.
    """

    def __init__(
        self,
        *,
        control: str | None = None,
        control_strength: float = 1.0,
        control_words: int = 50,
        control_rerank: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.control, self.control_strength = control, control_strength
        self.control_words, self.control_rerank = control_words, control_rerank
        self._controller: PrefixClassification | None = None

    def check_settings(self) -> None:
        """Also loads the classifier.

        Raises:
            UserError: it does not fit, or there is no choice among captions.
        """
        super().check_settings()
        if self.control_words < 1:
            raise UserError(f"control_words is {self.control_words}: expected 1 or more")
        if self.control_rerank and self.control is None:
            raise UserError(f"control_rerank is {self.control_rerank} without a control: name the run of a classifier")
        if self.control is not None:
            self.use_control(self.control)
            for name in self.condition_names:
                self._number_in_control(name)

    def use_control(self, path: str) -> None:
        """Takes the classifier of a run.

        Raises:
            UserError: it is none, or of another vocabulary.
        """
        found = load_module(path)
        if not isinstance(found, PrefixClassification):
            raise UserError(
                f"control '{path}' is of method '{found.method}': expected a run of experiments/prefix_classifier.yaml"
            )
        if found.inference.get("tokenizer") != self.inference.get("tokenizer"):
            raise UserError(
                f"control '{path}' was trained with another vocabulary than this captioner has: train it with "
                "--data.init_args.tokenizer=RUN, the run of the captioner"
            )
        # not a part of this module: checkpoints and optimisers do not know it
        object.__setattr__(self, "_controller", found.requires_grad_(False).eval())

    @property
    def control_module(self) -> nn.Module | None:
        """The classifier; None without control."""
        return self._controller

    def conditions_known(self) -> tuple[str, ...]:
        """Names of the labels that captions can be asked for: those learnt, else those of the classifier.

        Raises:
            UserError: there are none.
        """
        if self._controller is None or self.conditioned:
            return super().conditions_known()
        return self._controller.condition_names

    def control_for(self, names: Sequence[str | None]) -> Control | None:
        """What decoding needs to give each of B images its label; None without a classifier.

        Args:
            names: labels; None: for none.

        Raises:
            UserError: the classifier does not know one.
        """
        if self._controller is None:
            return None
        numbers = [-1 if name is None else self._number_in_control(name) for name in names]
        labels = torch.tensor(numbers, dtype=torch.long, device=self.device)
        classifier = self._controller.classifier.to(self.device)
        return Control(classifier=classifier, labels=labels, words=self.control_words)

    def _number_in_control(self, name: str) -> int:
        assert self._controller is not None
        known = self._controller.condition_names
        if name not in known:
            raise UserError(f"the classifier of control does not know {shown(name)}: it knows {', '.join(known)}")
        return known.index(name)
