"""Causal language models: GPT-2 of any size, or another one from transformers.

They turn caption tokens into hidden states, one per position, and hidden states into scores of the next token by their
input embedding (tied weights).

Letters: N captions, B rows while decoding, T tokens of the longest caption, D hidden width, V vocabulary, M scored
positions.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.hub import WAYS_OUT, hub_folder, only_local
from core.inputs import reason
from networks.decoders.adapters import FrozenDtype, add_adapters
from networks.layers.sequences import State, length_mask, on_device, on_host, true_places
from networks.layers.weights import check_local, load_state, quietly

if TYPE_CHECKING:  # importing these takes two seconds, which only those wait for who build a model
    from transformers import PretrainedConfig, PreTrainedModel

GPT2_SIZES = {
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}
"""Layers, heads and width of the published GPT-2 models (Radford et al. 2019), so that none needs a download."""


class LanguageModel(nn.Module):
    """A causal language model without its head; the head is the tied input embedding.

    Captions are right-padded and every position attends only to itself and those before it, so padding never reaches a
    real position and no padding mask is needed.

    Attributes:
        hidden_dim: D.
        vocab_size: V.

    Args:
        network: a transformers model that returns `last_hidden_state`.
        gradient_checkpointing: recompute each block in the backward pass instead of keeping its activations.
    """

    def __init__(self, *, network: "PreTrainedModel", gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.network = network
        self.vocab_size, self.hidden_dim = _embedding(network).weight.shape
        if network.config.hidden_size != self.hidden_dim:
            raise UserError(
                f"language model of type {network.config.model_type!r}: its embedding has width {self.hidden_dim} and "
                f"its hidden state {network.config.hidden_size}, so they cannot be tied; choose another one"
            )
        if gradient_checkpointing:
            # the name changed within transformers 5
            new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
            getattr(network, new if hasattr(network, new) else old)({"use_reentrant": False})
        # this name changed, too, one architecture after the other
        renamed = "cache" in inspect.signature(network.forward).parameters
        self._cache_argument = "cache" if renamed else "past_key_values"
        self._is_reduced = False

    def adapt(
        self, *, rank: int, alpha: int | None = None, dropout: float = 0.0, dtype: FrozenDtype = "float32"
    ) -> None:
        """Freezes the model, and puts adapters in it that learn; arguments as for `add_adapters`.

        Hidden states and scores are float32, whatever the frozen weights are.

        Raises:
            UserError: see `add_adapters`.
        """
        add_adapters(self.network, rank=rank, alpha=alpha, dropout=dropout, dtype=dtype)
        self._is_reduced = dtype != "float32"

    def _full(self, hidden: Tensor) -> Tensor:
        return hidden.float() if self._is_reduced else hidden

    def hidden(self, token_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Hidden states of captions read in parallel.

        Args:
            token_ids: right-padded, `(N, T)`, long.
            lengths: real tokens of each caption, `(N,)`, at least 1. If given, padding is not computed: short captions
                share rows (GPT-2 only; other networks compute the padding, with the same result).

        Returns:
            `(N, T, D)`; unspecified but finite at padded positions.
        """
        if lengths is not None and self.network.config.model_type == "gpt2":
            tokens = on_host(lengths)
            if sum(tokens) < 0.9 * token_ids.numel():
                return self._packed_hidden(token_ids, lengths, tokens)
        output: Tensor = self.network(input_ids=token_ids, use_cache=False).last_hidden_state
        return self._full(output)

    def _packed_hidden(self, token_ids: Tensor, lengths: Tensor, tokens: list[int]) -> Tensor:
        """The same with several captions in each row, separated by the attention mask."""
        count, longest = token_ids.shape
        width = max(longest, 64)
        starts, rows = pack(tokens, width)
        place = true_places(length_mask(lengths, longest), sum(tokens))
        caption, position = place // longest, place % longest
        slot = on_device(starts, token_ids.device)[caption] + position
        blank = token_ids.new_zeros(rows * width)
        packed = blank.index_copy(0, slot, token_ids.flatten()[place]).view(rows, width)
        positions = blank.index_copy(0, slot, position).view(rows, width)
        # 0 marks the empty places, which attend to each other only: no row of the softmax is empty
        segment = blank.index_copy(0, slot, caption + 1).view(rows, width)
        causal = torch.ones(width, width, dtype=torch.bool, device=token_ids.device).tril()
        visible = (segment.unsqueeze(2) == segment.unsqueeze(1)) & causal
        output = self.network(
            input_ids=packed, position_ids=positions, attention_mask=visible.unsqueeze(1), use_cache=False
        ).last_hidden_state
        hidden: Tensor = self._full(output.flatten(0, 1).index_select(0, slot))
        result = hidden.new_zeros(count * longest, self.hidden_dim)
        return result.index_copy(0, place, hidden).view(count, longest, self.hidden_dim)

    def cached_step(self, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one more token of every row.

        Args:
            token: `(B,)`, long.
            state: keys and values of the tokens before, as returned by the last call; None at the first token.

        Returns:
            Hidden state `(B, D)` and the new state: two tensors for each layer with B rows first.
        """
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        if state is not None:
            cache = DynamicCache([(state[f"key_{i}"], state[f"value_{i}"]) for i in range(len(state) // 2)])
        output = self.network(input_ids=token.unsqueeze(1), use_cache=True, **{self._cache_argument: cache})
        new: State = {}
        layers: Any = cache.layers  # extended in place
        for i, layer in enumerate(layers):
            new[f"key_{i}"], new[f"value_{i}"] = layer.keys, layer.values
        return self._full(output.last_hidden_state[:, 0]), new

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token: `(..., D)` to `(..., V)`, by the input embedding."""
        weight = _embedding(self.network).weight
        if self._is_reduced:
            return F.linear(hidden.to(weight.dtype), weight).float()
        if torch.is_grad_enabled() or hidden.device.type != "cpu" or len(weight) <= _VOCABULARY_PART:
            return F.linear(hidden, weight)
        # a decoding step has few rows: on a CPU the product is a third faster in parts that fit the cache
        return torch.cat([F.linear(hidden, part) for part in torch.split(weight, _VOCABULARY_PART)], dim=-1)

    def config_dict(self) -> dict[str, Any]:
        """The architecture as plain JSON values: `build_language_model(..., config=this)` rebuilds it offline."""
        values: dict[str, Any] = json.loads(self.network.config.to_json_string(use_diff=False))
        return values


_VOCABULARY_PART = 1024


def pack(lengths: list[int], width: int) -> tuple[list[int], int]:
    """Puts pieces into rows of a fixed width, longest first, each into the first row with room.

    Args:
        lengths: lengths of the pieces, each at most `width`.
        width: places in a row.

    Returns:
        Where each piece starts, counted through all rows, and the number of rows.

    >>> pack([3, 5, 2], 6)
    ([6, 0, 9], 2)
    """
    starts = [0] * len(lengths)
    filled: list[int] = []
    for piece in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, used in enumerate(filled) if used + lengths[piece] <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        starts[piece] = row * width + filled[row]
        filled[row] += lengths[piece]
    return starts, len(filled)


def build_language_model(
    name: str,
    weights: str | None,
    *,
    vocab_size: int,
    bos_id: int | None = None,
    eos_id: int | None = None,
    layers: int | None = None,
    heads: int | None = None,
    hidden_dim: int | None = None,
    dropout: float | None = None,
    config: Mapping[str, Any] | None = None,
    gradient_checkpointing: bool = False,
) -> LanguageModel:
    """Builds a language model. With `weights` None nothing is ever downloaded or looked up.

    New tokens of a pretrained model: BOS is initialised as a copy of EOS (GPT-2 uses `<|endoftext|>` as both), all
    others as the mean embedding (zeros would give PAD a far higher score than words, whose GPT-2 logits are well below
    0).

    Args:
        name: "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", or another causal language model by hub id or folder.
        weights: None for random weights, "pretrained" for the hub's weights of `name`, a hub id, a folder written by
            `save_pretrained`, or a state-dict file (.safetensors, .pth, .pt, .bin).
        vocab_size: V, tokens of our tokenizer.
        bos_id: our BOS.
        eos_id: our EOS.
        layers: blocks, instead of the name's own (random weights only, as `heads` and `hidden_dim`).
        heads: attention heads.
        hidden_dim: D.
        dropout: dropout probability of embeddings, attention weights and block outputs (GPT-2: 0.1).
        config: the architecture as `LanguageModel.config_dict` gave it; replaces `name` and the sizes.
        gradient_checkpointing: recompute each block in the backward pass.

    Raises:
        UserError: unknown name, weights that cannot be reached or do not match, sizes that contradict them, or a
            tokenizer smaller than the pretrained vocabulary.
    """
    if weights is not None and any(size is not None for size in (layers, heads, hidden_dim)):
        raise UserError(
            f"language_layers, language_heads and language_dim are given by the weights {weights!r}; remove them, "
            "or set language_weights to null"
        )
    if weights is None or Path(weights).is_file():
        shape = _config(name, config)
        _resize(shape, layers, heads, hidden_dim)
        _prepare(shape, dropout)
        shape.vocab_size = vocab_size if weights is None else shape.vocab_size
        network = _from_config(shape)
        if weights is not None:
            load_state(network, Path(weights), prefixes=("transformer.", "model."), ignore=("lm_head.weight",))
    else:
        network = _from_pretrained(name if weights == "pretrained" else weights, dropout)
    _fit_vocabulary(network, vocab_size, bos_id, eos_id)
    return LanguageModel(network=network, gradient_checkpointing=gradient_checkpointing)


def _config(name: str, config: Mapping[str, Any] | None) -> "PretrainedConfig":
    """The architecture of a name; nothing is downloaded."""
    from transformers import AutoConfig, GPT2Config

    if config is not None:
        values = dict(config)
        return AutoConfig.for_model(values.pop("model_type"), **values)
    if name in GPT2_SIZES:
        layers, heads, width = GPT2_SIZES[name]
        return GPT2Config(n_layer=layers, n_head=heads, n_embd=width)
    check_local(name)
    try:
        return cast(
            "PretrainedConfig", AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        )
    except Exception as error:  # broken files raise a dozen types
        raise UserError(
            f"language model {name!r} is unknown: give one of {', '.join(GPT2_SIZES)}, a folder with its "
            f"config.json, or {WAYS_OUT}"
        ) from error


def _resize(config: "PretrainedConfig", layers: int | None, heads: int | None, hidden_dim: int | None) -> None:
    """Sets the sizes that were asked for, in place."""
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden_dim}
    for key, value in sizes.items():
        if value is not None:
            setattr(config, key, value)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"language_dim={config.hidden_size} is not divisible by language_heads={config.num_attention_heads}"
        )


def _prepare(config: "PretrainedConfig", dropout: float | None) -> None:
    """Sets what every language model needs here, in place."""
    # The same function as GPT-2's own "gelu_new", as one operation instead of eight
    if getattr(config, "activation_function", None) == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"
    # Our padding needs no mask; with these ids set, transformers would warn that there is none
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    if dropout is not None:
        for key in ("embd_pdrop", "attn_pdrop", "resid_pdrop", "dropout", "attention_dropout"):
            if hasattr(config, key):
                setattr(config, key, dropout)


def _embedding(network: "PreTrainedModel") -> nn.Embedding:
    """The table of word embeddings."""
    return cast(nn.Embedding, network.get_input_embeddings())


def _from_config(config: "PretrainedConfig") -> "PreTrainedModel":
    """A network with random weights."""
    from transformers import AutoModel

    return cast("PreTrainedModel", AutoModel.from_config(config, dtype=torch.float32))  # type: ignore[no-untyped-call]


def _from_pretrained(source: str, dropout: float | None) -> "PreTrainedModel":
    """A network with the weights of a folder or the hub."""
    from transformers import AutoConfig, AutoModel

    folder = Path(source)
    if not folder.is_dir() and (folder.is_absolute() or source.startswith((".", "~")) or folder.suffix in _SUFFIXES):
        raise UserError(f"language weights {source!r} do not exist; give an existing folder or file, or {WAYS_OUT}")
    local = check_local(source)
    found = source if local else hub_folder(source)
    local = local or found != source
    try:
        config = AutoConfig.from_pretrained(found, local_files_only=local or only_local(), trust_remote_code=False)
        _prepare(config, dropout)
        with quietly():
            network, names = AutoModel.from_pretrained(
                found,
                config=config,
                dtype=torch.float32,
                local_files_only=local or only_local(),
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # broken files raise a dozen types
        what = f"cannot be read ({reason(error)})" if local else "cannot be reached"
        raise UserError(f"language weights {source!r} {what}; {WAYS_OUT}") from error
    if missing := sorted(names["missing_keys"]):
        raise UserError(
            f"language weights {source!r} lack {len(missing)} tensors, first {missing[0]!r}, which would be random; "
            "give the weights of a language model of this kind"
        )
    return cast("PreTrainedModel", network)


_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@torch.no_grad()
def _fit_vocabulary(network: "PreTrainedModel", vocab_size: int, bos_id: int | None, eos_id: int | None) -> None:
    """Resizes the embedding to one row for each token of our tokenizer."""
    old = _embedding(network).weight
    known = len(old)
    if vocab_size == known:
        return
    if vocab_size < known:
        raise UserError(
            f"the tokenizer has {vocab_size} tokens but the pretrained language model {known}; use the tokenizer that "
            "belongs to it, or set its weights to null"
        )
    embedding = nn.Embedding(vocab_size, old.shape[1])
    embedding.weight[:known] = old
    embedding.weight[known:] = old.mean(dim=0)
    if bos_id is not None and eos_id is not None and bos_id >= known > eos_id:
        embedding.weight[bos_id] = old[eos_id]
    network.set_input_embeddings(embedding)
    network.config.vocab_size = vocab_size
