"""A captioner that goes through a code: image, code, recurrent decoder, with or without attention.

Letters: B images, R regions, F width of their features, E width they are projected to, N captions, T tokens of
the longest one, M scored tokens, D code width.
"""

from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner, TokenIds
from networks.classifiers.image_code import ImageCoder
from networks.decoders.base import RecurrentDecoder
from networks.decoders.code import CodeDecoder
from networks.layers.attention import RegionProjection
from networks.layers.conditions import conditioned, without_condition
from networks.layers.sequences import CaptionOutput, Memory, State, targets_of

CodeEntry = Literal["state", "first_word"]


class CodeCaptioner(Captioner):
    """Image to code to caption.

    Args:
        coder: computes the codes of images.
        decoder: writes a caption from a code: the decoder of the text autoencoder (`networks.decoders.code`) or of the
            attention RNN (`networks.decoders.attention`). With an attention it attends to the regions, the summary, or
            both at every step.
        regions: projection of the regions for that attention; None: it does not attend to them.
        summary: projection of the coder's last hidden layer, from which the code is computed, for the same attention:
            one more region, or the only one. None: it is not attended to.
        entry: how a code enters the decoder: as its initial ``state``, or as its ``first_word``, read before BOS from a
            zero state (Vinyals et al. 2015, "Show and Tell", where it is an embedding of the image vector, too). The
            attention RNN's decoder supports ``state`` only.
        code_dropout: dropout probability of the code.
        token_ids: size of the vocabulary and the special tokens, see `TokenIds`.

    Raises:
        UserError: `entry` is ``first_word`` and the code is not as wide as a word, or the decoder cannot read it.
    """

    def __init__(
        self,
        *,
        coder: ImageCoder,
        decoder: RecurrentDecoder,
        regions: RegionProjection | None = None,
        summary: RegionProjection | None = None,
        entry: CodeEntry = "state",
        code_dropout: float = 0.0,
        **token_ids: Unpack[TokenIds],
    ) -> None:
        super().__init__(**token_ids)
        if entry not in ("state", "first_word"):
            raise UserError(f"entry is {entry!r}: expected state or first_word")
        width = coder.project.out_features
        if entry == "first_word" and width != decoder.word_dim:
            raise UserError(f"a code of width {width} cannot be the first word, which has width {decoder.word_dim}")
        if entry == "first_word" and not isinstance(decoder, CodeDecoder):
            raise UserError(
                "entry is first_word, but this decoder takes a code as its initial state only; set entry=state"
            )
        self.coder, self.decoder, self.entry = coder, decoder, entry
        self.regions, self.summary = regions, summary
        self.code_dropout = nn.Dropout(code_dropout)

    def encode(self, batch: Batch) -> Memory:
        """Codes of the images `code` `(B, D)`, the layer before them `hidden`, and the regions for an attention."""
        regions, mask = self.coder.regions(batch)
        hidden = self.coder.hidden(regions, mask)
        memory = {"code": self.coder.codes(hidden), "hidden": hidden}
        attention = self.decoder.attention
        if attention is None:
            return memory
        parts: list[Tensor] = []
        real: Tensor | None = None
        if self.regions is not None:
            features, real = self.regions(regions, mask)
            parts.append(features)
        if self.summary is not None:
            parts.append(self.summary(hidden.unsqueeze(1), None)[0])
            real = None if real is None else F.pad(real, (0, 1), value=True)
        memory["features"] = torch.cat(parts, dim=1)
        memory["keys"] = attention.keys(memory["features"])
        return memory if real is None else memory | {"mask": real}

    def similarity_state(self, memory: Memory) -> Tensor:
        """The layer that codes are computed from, `(B, width)`, float32."""
        return memory["hidden"].float()

    @property
    def condition_dim(self) -> int:
        """A condition is added to the code, which is all that the decoder starts from."""
        return self.coder.project.out_features

    def start(self, code: Tensor) -> State:
        """State of the decoder before BOS, from codes `(B, D)`."""
        code = self.code_dropout(code)
        if self.entry == "state":
            return self.decoder.start(code)
        assert isinstance(self.decoder, CodeDecoder)  # checked in the constructor
        zero = self.decoder.zero(len(code), code.device)
        return self.decoder.run(code.unsqueeze(1), zero)[1]

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `Captioner.step`."""
        state = self.start(conditioned(memory["code"], memory)) if state is None else state
        return self.decoder.step(without_condition(memory), token, state)

    def forward(
        self,
        memory: Memory,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        scheduled_sampling: float = 0.0,
    ) -> CaptionOutput:
        """Scores every real target token, see `Captioner.forward`; `scheduled_sampling`: see the decoder."""
        start = self.start(conditioned(memory["code"], memory))
        logits, attention = self.decoder.score(
            without_condition(memory), start, caption_ids, caption_lengths, image_index, scheduled_sampling
        )
        return CaptionOutput(logits=logits, targets=targets_of(caption_ids, caption_lengths), attention=attention)

    @property
    def attends(self) -> bool:
        """Whether the decoder attends to regions."""
        return self.regions is not None

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`; over the regions alone, renormalised without the summary's share."""
        weights = self.forward(memory, caption_ids, caption_lengths, image_index).attention
        if weights is None or self.regions is None:
            raise NotImplementedError("this decoder does not attend to regions")
        regions = weights if self.summary is None else weights[..., :-1]
        return regions / regions.sum(dim=-1, keepdim=True).clamp_min(1e-12)
