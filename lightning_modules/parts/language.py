"""A causal language model that belongs to a module: its options, its architecture, its weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from lightning_modules.parts.mixin import Mixin
from networks.decoders.language import GPT2_SIZES, LanguageModel, build_language_model


class LanguageModelOptions(Mixin):
    """A module with a causal language model.

    Args:
        language_model: a GPT-2 size, or another causal language model's folder or hub id.
        language_weights: hub id, local folder or file, or None = random.
        language_layers: blocks of the language model; None = as its name says.
        language_heads: attention heads, likewise.
        language_dim: hidden width, likewise.
        dropout: dropout of the language model; None = as its name says.
        language_config: architecture as saved in a checkpoint; overrides `language_model`.
    """

    def __init__(
        self,
        *,
        language_model: str = "gpt2",
        language_weights: str | None = "gpt2",
        language_layers: int | None = None,
        language_heads: int | None = None,
        language_dim: int | None = None,
        dropout: float | None = None,
        language_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.language_model, self.language_weights = language_model, language_weights
        self.language_layers, self.language_heads, self.language_dim = language_layers, language_heads, language_dim
        self.dropout, self.language_config = dropout, language_config
        # Random weights at first: pretrained ones come in `load_pretrained`, so that serving and resuming never look
        # for them. Only an architecture that is not known by name must be read from its weights the first time.
        known = language_model in GPT2_SIZES and not (language_weights and Path(language_weights).is_dir())
        self.language_is_loaded = language_config is None and language_weights is not None and not known

    @property
    def own_language_model(self) -> LanguageModel:
        """The language model, wherever the method keeps it."""
        raise NotImplementedError(f"{type(self).__name__} has no own_language_model")

    def load_language_weights(self, vocab_size: int, bos_id: int, eos_id: int) -> None:
        """Loads the weights that the options name, unless the architecture already came with them.

        Raises:
            UserError: they cannot be reached or do not match.
        """
        if self.language_weights is not None and not self.language_is_loaded:
            name, weights = self.language_model, self.language_weights
            loaded = build_language_model(name, weights, vocab_size=vocab_size, bos_id=bos_id, eos_id=eos_id)
            self.own_language_model.load_state_dict(loaded.state_dict())

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Also those of the language model, if it has pretrained weights."""
        yield from super().pretrained_parameters()
        if self.language_weights is not None:
            yield from self.own_language_model.parameters()
