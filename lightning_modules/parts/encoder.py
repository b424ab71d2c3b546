"""An image encoder that belongs to a module: random at first, then pretrained weights, then what of it learns."""

from collections.abc import Iterable, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from core.errors import UserError
from core.text import visible
from lightning_modules.parts.mixin import Mixin
from lightning_modules.parts.optimisation import ParameterGroup, add_group
from networks.encoders.base import ImageEncoder
from networks.encoders.freezing import parameters_of_map
from networks.encoders.loading import load_encoder_weights
from networks.encoders.source import own_encoder


class ImageEncoderOptions(Mixin):
    """An image encoder of the module's own, or features that the data module's frozen encoder has computed.

    A subclass builds the encoder with `new_encoder`, says where it is in `own_encoder` and calls `let_encoder_learn`.

    Args:
        image_encoder: image encoder that belongs to this module, see `networks.encoders.build.build_encoder`; None: the
            data module's frozen `encoder` gives features.
        image_weights: weights of `image_encoder`: a published name, a local file, or None = random.
        feature_dim: width of the data module's features; None when it gives images.
    """

    def __init__(
        self,
        *,
        image_encoder: str | None = None,
        image_weights: str | None = None,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_encoder, self.image_weights, self.feature_dim = image_encoder, image_weights, feature_dim
        self._encoder_learns = True
        self._learning_parts: Sequence[nn.Module] | None = None
        self._learning_names: frozenset[str] | None = None

    @property
    def own_encoder(self) -> ImageEncoder | None:
        """The encoder, wherever the method keeps it; None on stored features."""
        raise NotImplementedError(f"{type(self).__name__} has no own_encoder")

    def new_encoder(self, **needs_own: bool) -> ImageEncoder | None:
        """Builds the encoder with random weights.

        Published ones come in `load_pretrained`, so that serving never looks for them.

        Args:
            needs_own: options that mean something only for an encoder of the module's own, and whether each is given.

        Raises:
            UserError: neither or both of data module and module have one, or options are for one that is not there.
        """
        given = {"image_weights": self.image_weights is not None, **needs_own}
        return own_encoder(
            self.image_encoder, self.feature_dim, given, gradient_checkpointing=self.gradient_checkpointing
        )

    def load_pretrained(self) -> None:
        """Loads the encoder's weights.

        Raises:
            UserError: they cannot be reached or do not match.
        """
        super().load_pretrained()
        load_encoder_weights(self.own_encoder, self.image_encoder, self.image_weights)

    # what learns

    def choose_learning(self, parts: Sequence[nn.Module] | None = None) -> None:
        """Chooses what may learn: of the given parts (None: the whole encoder), the parameters that make its map.

        The others, of its pooling and classifier, never get a gradient, and several processes would wait for it.
        """
        encoder = self.own_encoder
        if encoder is not None:
            self._learning_parts = (encoder,) if parts is None else tuple(parts)
            self._learning_names = frozenset(parameters_of_map(encoder))

    def learning_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the encoder that may learn, see `choose_learning`; all of them before it was called."""
        encoder = self.own_encoder
        if encoder is None:
            return
        parts = (encoder,) if self._learning_parts is None else self._learning_parts
        chosen = {id(parameter) for part in parts for parameter in part.parameters()}
        for name, parameter in encoder.named_parameters():
            if id(parameter) in chosen and (self._learning_names is None or name in self._learning_names):
                yield parameter

    def let_encoder_learn(self, learns: bool) -> None:
        """Switches learning on or off. Off means: no gradients, evaluation mode, and absent from the optimiser."""
        self._encoder_learns = learns
        encoder = self.own_encoder
        if encoder is None:
            return
        encoder.requires_grad_(False)
        for parameter in self.learning_parameters():
            parameter.requires_grad_(learns)
            parameter.grad = None  # an optimiser passes over what has none
        self.set_modes(self.training)

    def set_modes(self, mode: bool) -> None:
        """Also puts what is frozen of the encoder into evaluation mode."""
        if (encoder := self.own_encoder) is not None:
            encoder.eval()
            for part in (encoder,) if self._learning_parts is None else self._learning_parts:
                part.train(mode and self._encoder_learns)
        super().set_modes(mode)

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the encoder, whatever they start from."""
        yield from self.learning_parameters()


class UnfreezingEncoder(ImageEncoderOptions):
    """An image encoder that is frozen until an epoch.

    Args:
        unfreeze_epoch: epoch, from 0, from which the image encoder learns, too; None: it stays frozen to the last bit.
    """

    def __init__(self, *, unfreeze_epoch: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unfreeze_epoch = unfreeze_epoch

    def setup(self, stage: str) -> None:
        """Refuses what several processes cannot do.

        Raises:
            UserError: several processes and an encoder that begins to learn in mid-run: gradients of parameters that
                were frozen at the start would not be exchanged.
        """
        if stage == "fit" and self.unfreeze_epoch and self.trainer.world_size > 1:
            raise UserError(
                f"unfreeze_epoch is {self.unfreeze_epoch} with {self.trainer.world_size} processes: train with "
                "unfreeze_epoch=null first, then start a second run with init_from and unfreeze_epoch=0"
            )
        super().setup(stage)

    def on_train_epoch_start(self) -> None:
        """Lets the encoder learn from its epoch on: it joins the optimiser and its schedule as a group of its own.

        The one place that changes an optimiser in use. What is frozen is absent from the optimiser, everywhere in this
        project: so neither weight decay nor old moments can move it, and a checkpoint from before the epoch, which has
        no such group, tells a resumed run that the encoder still waits.
        """
        if self._encoder_learns or self.unfreeze_epoch is None or self.current_epoch < self.unfreeze_epoch:
            return
        self.let_encoder_learn(True)
        group = ParameterGroup(name="pretrained", parameters=list(self.pretrained_parameters()), lr=self.lr_pretrained)
        add_group(self.trainer.optimizers[0], [config.scheduler for config in self.trainer.lr_scheduler_configs], group)  # type: ignore[misc]  # this project's are all LambdaLR
        rank_zero_info(visible(f"epoch {self.current_epoch}: the image encoder learns from now on"))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also finds out whether the encoder had begun to learn; the optimiser is made after this."""
        super().on_load_checkpoint(checkpoint)
        states = checkpoint.get("optimizer_states") or [{"param_groups": []}]
        if any(group.get("name") == "pretrained" for group in states[0]["param_groups"]):
            self.let_encoder_learn(True)
