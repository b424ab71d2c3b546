"""Dual-transfer captioning: a pretrained image encoder, a pretrained language model and a network that merges them.

Letters: B images or rows, N captions, T tokens, M scored positions, Dv width of the image vector, Dh width of the
language model, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from core.batch import Batch
from networks.captioners.base import Captioner, TokenIds
from networks.decoders.language import build_language_model
from networks.decoders.merging import MergingVariant, build_merging
from networks.decoders.region_attention import RegionAttention
from networks.encoders.source import image_regions, images_of, own_encoder
from networks.layers.checkpointing import Runner
from networks.layers.conditions import conditioned
from networks.layers.pooling import Pooling, RegionPooling
from networks.layers.sequences import CaptionOutput, Memory, State, steps_of, target_mask, target_places, targets_of

_MERGING = "merging_"
"""Prefix of the merging network's entries in the state."""


class DualTransferCaptioner(Captioner):
    """EfficientNet-B4 and GPT-2, merged at every time step.

    v = image encoder (image), once for each image; h_t = last hidden state of the language model after token t;
    o_t = merging (v, h_t); scores of token t + 1 = E o_t with E the input embedding of the language model.

    Deviations from the published code: BOS, EOS and PAD are three tokens; an image is encoded once however many
    captions it has; padding is neither computed nor scored.

    Attributes:
        encoder: the image encoder, or None.
        language: the language model.
        merging: the network that merges both.
        region_attention: what lets words look at the regions, see `add_region_attention`; None: the vector is all that
            is seen.

    Args:
        image_encoder: name of the image encoder, see `networks.encoders.build.build_encoder`; None: batches bring the
            `features` of a frozen one.
        image_weights: weights of the image encoder; None: random.
        image_outputs: Dv; None: the encoder's own (EfficientNet: 1000).
        language_model: name of the language model, see `networks.decoders.language.build_language_model`.
        language_weights: weights of the language model; None: random.
        language_config: its architecture as plain values, instead of `language_model` and the next three.
        language_layers: its blocks, instead of the name's own; random weights only, as the next two.
        language_heads: its attention heads.
        language_dim: Dh.
        dropout: its dropout probability; None: its own (GPT-2: 0.1).
        merging: variant of the merging network.
        max_tokens: longest caption, for the merging variant "batch_norm".
        gradient_checkpointing: recompute the blocks of encoder and language model and the merging network in the
            backward pass: less memory, more time.
        feature_dim: width of the features that batches bring.
        pooling: how these features become v, see `networks.layers.pooling`; ignored with `image_encoder`, which
            computes a vector of its own.
        token_ids: size of the vocabulary and the special tokens, see `TokenIds`.

    Raises:
        UserError: neither or both of `image_encoder` and `feature_dim` are given.
    """

    def __init__(
        self,
        *,
        image_encoder: str | None = "efficientnet-b4",
        image_weights: str | None = None,
        image_outputs: int | None = None,
        language_model: str = "gpt2",
        language_weights: str | None = None,
        language_config: Mapping[str, Any] | None = None,
        language_layers: int | None = None,
        language_heads: int | None = None,
        language_dim: int | None = None,
        dropout: float | None = None,
        merging: MergingVariant = "mlp",
        max_tokens: int = 36,
        gradient_checkpointing: bool = False,
        feature_dim: int | None = None,
        pooling: Pooling = "mean",
        **token_ids: Unpack[TokenIds],
    ) -> None:
        super().__init__(**token_ids)
        self.encoder = own_encoder(
            image_encoder,
            feature_dim,
            weights=image_weights,
            gradient_checkpointing=gradient_checkpointing,
            num_outputs=image_outputs,
        )
        self.feature_dim = feature_dim or 1
        self.pooling = RegionPooling(pooling=pooling, feature_dim=self.feature_dim)
        self.language = build_language_model(
            language_model,
            language_weights,
            vocab_size=self.vocab_size,
            bos_id=self.bos_id,
            eos_id=self.eos_id,
            layers=language_layers,
            heads=language_heads,
            hidden_dim=language_dim,
            dropout=dropout,
            config=language_config,
            gradient_checkpointing=gradient_checkpointing,
        )
        self._run = Runner(gradient_checkpointing)
        self.vector_dim = self.encoder.vector_dim if self.encoder is not None else self.pooling.out_features
        self.merging = build_merging(
            merging, image_dim=self.vector_dim, hidden_dim=self.language.hidden_dim, max_steps=max_tokens
        )

        self.region_attention: RegionAttention | None = None

    def add_region_attention(self, heads: int, *, positions: bool = False) -> None:
        """Lets every hidden state look at the regions of the image before it is merged with the vector.

        Args:
            heads: heads of the attention, see `networks.decoders.region_attention`.
            positions: the regions are a square grid whose places the attention is told.

        Raises:
            UserError: the language model's width cannot be shared among the heads.
        """
        self.region_attention = RegionAttention(
            feature_dim=self.encoder.grid_dim if self.encoder is not None else self.feature_dim,
            hidden_dim=self.language.hidden_dim,
            heads=heads,
            positions=positions,
        )

    def encode(self, batch: Batch) -> Memory:
        """The vector of each image of ``batch["image"]``, or of its ``features``, and its regions where words look.

        Returns:
            `image` `(B, Dv)`; with an attention `regions`, the keys and values `(B, 2, h, R, d)`, and `mask` `(B, R)`
            if there is one.
        """
        mask = None
        if self.encoder is not None:
            found = self.encoder.feature_map(images_of(batch))
            vector, regions = self.encoder.pool(found), found.flatten(2).transpose(1, 2)
        else:
            dtype = next(self.merging.parameters()).dtype
            regions, mask = image_regions(batch, None, feature_dim=self.feature_dim, dtype=dtype)
            vector = self.pooling(regions, mask)
        if self.region_attention is None:
            return {"image": vector}
        seen = {"image": vector, "regions": self.region_attention.keys_values(regions, mask)}
        return seen if mask is None else seen | {"mask": mask}

    @property
    def condition_dim(self) -> int:
        """A condition is added to the image vector, which the merging network reads at every word."""
        return self.vector_dim

    def similarity_state(self, memory: Memory) -> Tensor:
        """The image vector, `(B, Dv)`, float32."""
        return memory["image"].float()

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Captioner.step`; the state is the language model's key-value cache and the merging network's state."""
        past = seen = None
        if state is not None:
            past = {name: tensor for name, tensor in state.items() if not name.startswith(_MERGING)}
            seen = {name.removeprefix(_MERGING): state[name] for name in state if name.startswith(_MERGING)}
        hidden, past = self.language.cached_step(token, past)
        if self.region_attention is not None:
            hidden = self.region_attention(hidden.unsqueeze(1), memory["regions"], memory.get("mask")).squeeze(1)
        merged, seen = self.merging.step(conditioned(memory["image"], memory), hidden, seen)
        return self.language.logits(merged), past | {_MERGING + name: tensor for name, tensor in seen.items()}

    def forward(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> CaptionOutput:
        """See `Captioner.forward`; logits are computed at the real targets only."""
        steps = steps_of(caption_lengths)
        hidden = self.language.hidden(caption_ids[:, :-1], steps)
        if self.region_attention is not None:
            hidden = self._run(self.region_attention, hidden, *_regions_of(memory, image_index))
        image = conditioned(memory["image"], memory).index_select(0, image_index)
        merged = self._run(self.merging, image, hidden, steps)
        real = merged.flatten(0, 1).index_select(0, target_places(caption_lengths, caption_ids.shape[1]))
        return CaptionOutput(logits=self.language.logits(real), targets=targets_of(caption_ids, caption_lengths))

    @property
    def attends(self) -> bool:
        """Whether words look at the regions."""
        return self.region_attention is not None

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`; mean over the heads."""
        if self.region_attention is None:
            return super().attention_maps(memory, caption_ids, caption_lengths, image_index)
        hidden = self.language.hidden(caption_ids[:, :-1], steps_of(caption_lengths))
        weights = self.region_attention.weights(hidden, *_regions_of(memory, image_index))
        return weights * target_mask(caption_lengths, caption_ids.shape[1]).unsqueeze(2)


def _regions_of(memory: Memory, index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Keys and values of the image of each caption, and the mask of its regions."""
    mask = memory.get("mask")
    return memory["regions"].index_select(0, index), None if mask is None else mask.index_select(0, index)
