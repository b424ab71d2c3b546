"""A causal language model that belongs to a module: its options, its architecture, its weights, its adapters."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core.errors import UserError
from lightning_modules.parts.mixin import Mixin
from networks.decoders.adapters import FrozenDtype, is_adapter, weights_digest, without_adapters
from networks.decoders.language import GPT2_SIZES, LanguageModel, build_language_model

_DIGEST = "adapted_weights"
"""Entry of `inference` that names the frozen weights beside which adapters have learnt."""


class LanguageModelOptions(Mixin):
    """A module with a causal language model.

    Args:
        language_model: a GPT-2 size, or another causal language model's folder or hub id.
        language_weights: hub id, local folder or file, or None = random.
        language_layers: blocks of the language model; None = as its name says.
        language_heads: attention heads of the language model; None = as its name says.
        language_dim: hidden width of the language model; None = as its name says.
        dropout: dropout of the language model; None = as its name says.
        language_config: architecture as saved in a checkpoint; overrides `language_model`.
        lora_rank: width of low-rank adapters (LoRA) in all linear layers of the language model, which itself stays
            frozen and out of the checkpoints; needs `language_weights`. 0: the whole language model learns.
        lora_alpha: adapters count `lora_alpha` / `lora_rank`; None: twice the rank.
        lora_dropout: share dropped from what adapters read.
        language_dtype: data type of the frozen weights beside adapters; ``bfloat16`` takes half of the memory, ``int8``
            about a quarter.
    """

    vocab_size: int
    bos_id: int
    eos_id: int

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
        lora_rank: int = 0,
        lora_alpha: int | None = None,
        lora_dropout: float = 0.0,
        language_dtype: FrozenDtype = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lora_rank, self.lora_alpha, self.lora_dropout = lora_rank, lora_alpha, lora_dropout
        self.language_dtype: FrozenDtype = language_dtype
        self._frozen_is_loaded, self._frozen_digest = False, ""
        self._check_adapters(language_weights)
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

    def _check_adapters(self, weights: str | None) -> None:
        """Refuses settings of adapters that contradict each other."""
        if self.lora_rank < 0:
            raise UserError(f"lora_rank is {self.lora_rank}: expected 0 or more")
        if self.lora_rank and weights is None:
            raise UserError(
                f"lora_rank is {self.lora_rank}, but language_weights is null: adapters change pretrained weights, so "
                "name some, or set lora_rank to 0"
            )
        if not self.lora_rank and self.language_dtype != "float32":
            raise UserError(
                f"language_dtype is {self.language_dtype} with lora_rank 0: weights that learn need float32; set "
                "lora_rank, such as to 16"
            )

    def complete_language_model(self) -> None:
        """Notes the architecture once it is built, and puts adapters into it if there are to be some."""
        self.hparams["language_config"] = self.own_language_model.config_dict()
        if self.lora_rank:
            self.own_language_model.adapt(
                rank=self.lora_rank, alpha=self.lora_alpha, dropout=self.lora_dropout, dtype=self.language_dtype
            )
            self._frozen_is_loaded = self.language_is_loaded

    def load_language_weights(self) -> None:
        """Loads the weights that the options name, unless the architecture already came with them.

        Raises:
            UserError: they cannot be reached or do not match.
        """
        if self.language_weights is not None and not self.language_is_loaded:
            name, weights = self.language_model, self.language_weights
            loaded = build_language_model(
                name, weights, vocab_size=self.vocab_size, bos_id=self.bos_id, eos_id=self.eos_id
            )
            found, own = loaded.state_dict(), self.own_language_model.state_dict()
            adapters = {key: value for key, value in own.items() if is_adapter(key)}
            frozen = {
                key: found[name] for key in own if key not in adapters and (name := without_adapters(key)) in found
            }
            self.own_language_model.load_state_dict(adapters | frozen)
            self._frozen_is_loaded = True

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Also those of the language model, if it has pretrained weights; adapters are new."""
        yield from super().pretrained_parameters()
        if self.language_weights is not None:
            named = self.own_language_model.named_parameters()
            yield from (parameter for name, parameter in named if not is_adapter(name))

    # checkpoints of adapters alone

    def frozen_weights(self) -> dict[str, Tensor]:
        """Weights beside adapters, by their names in a checkpoint, which leaves them out; empty without adapters."""
        if not self.lora_rank:
            return {}
        prefix = next(name for name, part in self.named_modules() if part is self.own_language_model)
        own = self.own_language_model.state_dict(prefix=f"{prefix}.")
        return {name: value for name, value in own.items() if not is_adapter(name)}

    def complete_weights(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """Adds the weights beside adapters, which are loaded from where they came.

        Raises:
            UserError: they cannot be reached, or are not those beside which the adapters have learnt.
        """
        weights = super().complete_weights(checkpoint)
        if not self.lora_rank:
            return weights
        if not self._frozen_is_loaded:
            self.load_language_weights()
        if checkpoint.get("inference", {}).get(_DIGEST, self._digest()) != self._digest():
            raise UserError(
                f"language weights {self.language_weights!r} are not those beside which the adapters of this "
                "checkpoint have learnt: name these with model.init_args.language_weights"
            )
        return weights | self.frozen_weights()

    def _digest(self) -> str:
        if not self._frozen_digest:
            self._frozen_digest = weights_digest(self.frozen_weights())
        return self._frozen_digest

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the weights beside adapters out, and says which they were."""
        super().on_save_checkpoint(checkpoint)
        if self.lora_rank:
            checkpoint["inference"] = {**checkpoint["inference"], _DIGEST: self._digest()}
            for name in self.frozen_weights():
                checkpoint["state_dict"].pop(name, None)
