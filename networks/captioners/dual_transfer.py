"""Dual-transfer captioning: a pretrained image tower, a pretrained language tower and a merging network between them.

Letters: B images or rows, N captions, T tokens, M scored positions, Dv width of the picture's vector, Dh width of the
language tower, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from core.batch import Batch
from networks.captioners.base import Captioner, CaptionOutput, Memory, State, target_mask
from networks.decoders.language import build_language_model
from networks.decoders.merging import MergingVariant, build_merging
from networks.encoders.build import ImageEncoder, build_encoder
from networks.layers.pooling import Pooling, RegionPooling


class DualTransferCaptioner(Captioner):
    """EfficientNet-B4 and GPT-2, merged at every time step.

    v = image tower (picture), once for each picture; h_t = last hidden state of the language tower after token t;
    o_t = merging (v, h_t); scores of token t + 1 = E o_t with E the language tower's input embedding.

    Deviations from the published code: BOS, EOS and PAD are three tokens; the picture is encoded once however many
    captions it has; padding is neither computed nor scored.

    Attributes:
        encoder: the image tower.
        language: the language tower.
        merging: the network between them.

    Args:
        vocab_size: V.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling.
        encoder: name of the image tower (see `networks.encoders.build.build_encoder`); None: batches bring `features`
            of a frozen one.
        encoder_weights: its weights; None for random ones.
        encoder_outputs: Dv; None for the tower's own (EfficientNet: 1000).
        language: name of the language tower (see `networks.decoders.language.build_language_model`).
        language_weights: its weights; None for random ones.
        language_config: its architecture as plain values, instead of `language` and the sizes.
        layers: blocks of the language tower, if not the name's own; random weights only, so are `heads`, `width`.
        heads: its attention heads.
        width: Dh.
        dropout: its dropout; None for its own (GPT-2: 0.1).
        merging: variant of the merging network.
        max_tokens: longest caption, for the merging variant "batch_norm".
        gradient_checkpointing: recompute the blocks of both towers in the backward pass: less memory, more time.
        feature_dim: width of these features.
        pooling: how they become v, see `networks.layers.pooling`; only without `encoder`, which has a vector of its
            own.

    Raises:
        ValueError: neither or both of `encoder` and `feature_dim` are given.
    """

    encoder: ImageEncoder | None

    def __init__(
        self,
        vocab_size: int,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        encoder: str | None = "efficientnet-b4",
        encoder_weights: str | None = None,
        encoder_outputs: int | None = None,
        language: str = "gpt2",
        language_weights: str | None = None,
        language_config: Mapping[str, Any] | None = None,
        layers: int | None = None,
        heads: int | None = None,
        width: int | None = None,
        dropout: float | None = None,
        merging: MergingVariant = "mlp",
        max_tokens: int = 36,
        gradient_checkpointing: bool = False,
        feature_dim: int | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = vocab_size, bos_id, eos_id, pad_id
        if (encoder is None) == (feature_dim is None):
            raise ValueError(f"encoder={encoder!r} and feature_dim={feature_dim}: give one of the two")
        self.encoder = None
        if encoder is not None:
            self.encoder = build_encoder(
                encoder, encoder_weights, gradient_checkpointing=gradient_checkpointing, num_outputs=encoder_outputs
            )
        self.pooling = RegionPooling(pooling, feature_dim or 1)
        self.language = build_language_model(
            language,
            language_weights,
            vocab_size,
            bos_id=bos_id,
            eos_id=eos_id,
            layers=layers,
            heads=heads,
            width=width,
            dropout=dropout,
            config=language_config,
            gradient_checkpointing=gradient_checkpointing,
        )
        vector_dim = self.encoder.vector_dim if self.encoder is not None else self.pooling.out_features
        self.merging = build_merging(merging, vector_dim, self.language.width, max_steps=max_tokens)
        self._given = {
            "encoder": encoder,
            "encoder_outputs": encoder_outputs,
            "language": language,
            "merging": merging,
            "max_tokens": max_tokens,
            "feature_dim": feature_dim,
            "pooling": pooling,
        }

    def spec(self) -> dict[str, Any]:
        """Plain JSON values: ``DualTransferCaptioner(**spec)`` builds the same network offline, with random weights."""
        return {
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "pad_id": self.pad_id,
            **self._given,
            "language_config": self.language.config_dict(),
        }

    def encode(self, batch: Batch) -> Memory:
        """The vector of each picture of ``batch["image"]``, or of its ``features``: ``{"image": (B, Dv)}``."""
        if self.encoder is not None:
            return {"image": self.encoder.vector(batch["image"])}
        dtype = next(self.merging.parameters()).dtype  # the store holds half precision
        return {"image": self.pooling(batch["features"].to(dtype), batch.get("feature_mask"))}

    def similarity_state(self, memory: Memory) -> Tensor:
        """The picture's vector, `(B, Dv)`, float32."""
        return memory["image"].float()

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Captioner.step`; the state is the language tower's key-value cache and the merging network's state."""
        past = seen = None
        if state is not None:
            past = {name: tensor for name, tensor in state.items() if not name.startswith(_MERGING)}
            seen = {name.removeprefix(_MERGING): state[name] for name in state if name.startswith(_MERGING)}
        hidden, past = self.language.cached_step(token, past)
        merged, seen = self.merging.step(memory["image"], hidden, seen)
        return self.language.logits(merged), past | {_MERGING + name: tensor for name, tensor in seen.items()}

    def forward(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> CaptionOutput:
        """See `Captioner.forward`; logits are computed at the real targets only."""
        steps = caption_lengths - 1  # the last token, EOS, is a target but no input
        hidden = self.language.hidden(caption_ids[:, :-1], steps)
        merged = self.merging(memory["image"].index_select(0, image_index), hidden, steps)
        real = target_mask(caption_lengths, caption_ids.shape[1])
        return CaptionOutput(self.language.logits(merged[real]), caption_ids[:, 1:][real])


_MERGING = "merging_"
