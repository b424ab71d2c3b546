"""A captioner of pictures over a code: image, code, recurrent decoder, with or without attention.

Letters: B images, R regions, F their width, E width they are projected to, N captions, T tokens of the longest one,
M scored tokens, D code width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner, CaptionOutput, Memory, State, target_mask
from networks.classifiers.image_code import ImageCoder
from networks.decoders.base import RecurrentDecoder
from networks.decoders.code import CodeDecoder
from networks.layers.positions import pooled

CodeEntry = Literal["state", "first_word"]


class RegionProjection(nn.Module):
    """Regions as an attention takes them: averaged to a coarser grid, projected, normalised.

    Args:
        feature_dim: F.
        width: E.
        side: rows and columns of the coarser square grid; None: as they come.
        dropout: share of the projected numbers dropped.
    """

    def __init__(self, feature_dim: int, width: int, side: int | None, dropout: float) -> None:
        super().__init__()
        self.side = side
        self.project = nn.Linear(feature_dim, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`(B, R, F)` and a mask of the real ones `(B, R)`, or None, to `(B, R', E)` and `(B, R')`, or None."""
        if mask is not None:
            # whatever stands there, even NaN, must not reach the projection: 0 times NaN is NaN
            regions = regions.masked_fill(~mask.unsqueeze(2), 0.0)
        if self.side is not None:
            regions, mask = pooled(regions, mask, self.side)
        return self.dropout(self.norm(self.project(regions))), mask


class CodeCaptioner(Captioner):
    """Image to code to caption.

    Args:
        coder: makes the codes of images.
        decoder: writes a caption from a code; with an attention it looks at regions or the summary in every step. That
            of the text autoencoder (`networks.decoders.code`) or of the attention RNN (`networks.decoders.attention`).
        regions: projection of the regions for that attention; None: it does not look at them.
        summary: projection of what the code is made of, the coder's last hidden layer; it joins the regions as one more
            of them, or is all that there is to look at. None: it is not looked at.
        entry: how a code enters the decoder: as its initial ``state`` or as its ``first_word``, before BOS and from a
            state of zeros (Vinyals et al. 2015, "Show and Tell"; there it is also an embedding of the image vector),
            which the attention RNN's decoder cannot.
        code_dropout: share of the code dropped in training.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling.

    Raises:
        UserError: `first_word` and the code is not as wide as a word, or the decoder cannot read it.
    """

    def __init__(
        self,
        coder: ImageCoder,
        decoder: RecurrentDecoder,
        regions: RegionProjection | None = None,
        summary: RegionProjection | None = None,
        entry: CodeEntry = "state",
        code_dropout: float = 0.0,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
    ) -> None:
        super().__init__()
        if entry not in ("state", "first_word"):
            raise UserError(f"entry is {entry!r}: expected state or first_word")
        width = coder.project.out_features
        if entry == "first_word" and width != decoder.word_dim:
            raise UserError(f"a code of {width} numbers cannot be the first word, which has {decoder.word_dim}")
        if entry == "first_word" and not isinstance(decoder, CodeDecoder):
            raise UserError(
                "entry is first_word: this decoder takes a code as its initial state alone; set entry=state"
            )
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = decoder.vocab_size, bos_id, eos_id, pad_id
        self.coder, self.decoder, self.entry = coder, decoder, entry
        self.regions, self.summary = regions, summary
        self.code_dropout = nn.Dropout(code_dropout)

    def encode(self, batch: Batch) -> Memory:
        """Codes of the images `code` `(B, D)`, what made them `hidden`, and what an attention looks at."""
        regions, mask = self.coder.regions(batch)
        hidden = self.coder.hidden(regions, mask)
        memory = {"code": self.coder.codes(hidden), "hidden": hidden}
        attention = self.decoder.attention
        if attention is None:
            return memory
        seen: list[Tensor] = []
        real: Tensor | None = None
        if self.regions is not None:
            features, real = self.regions(regions, mask)
            seen.append(features)
        if self.summary is not None:
            seen.append(self.summary(hidden.unsqueeze(1), None)[0])
            real = None if real is None else F.pad(real, (0, 1), value=True)
        memory["features"] = torch.cat(seen, dim=1)
        memory["keys"] = attention.keys(memory["features"])
        return memory if real is None else memory | {"mask": real}

    def similarity_state(self, memory: Memory) -> Tensor:
        """What training images are known by: the layer that codes are made of, `(B, width)`, float32."""
        return memory["hidden"].float()

    def start(self, code: Tensor) -> State:
        """State of the decoder before BOS, from codes `(B, D)`."""
        code = self.code_dropout(code)
        if self.entry == "state":
            return self.decoder.start(code)
        assert isinstance(self.decoder, CodeDecoder)  # the constructor has seen to it
        zero = self.decoder.zero(len(code), code.device)
        return self.decoder.run(code.unsqueeze(1), zero)[1]

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `Captioner.step`."""
        return self.decoder.step(memory, token, self.start(memory["code"]) if state is None else state)

    def forward(
        self,
        memory: Memory,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        scheduled_sampling: float = 0.0,
    ) -> CaptionOutput:
        """Scores every real target token, see `Captioner.forward`; `scheduled_sampling`: see the decoder."""
        start = self.start(memory["code"])
        logits, attention = self.decoder.score(
            memory, start, caption_ids, caption_lengths, image_index, scheduled_sampling
        )
        targets = caption_ids[:, 1:][target_mask(caption_lengths, caption_ids.shape[1])]
        return CaptionOutput(logits, targets, attention)

    @property
    def attends(self) -> bool:
        """Whether the decoder looks at regions."""
        return self.regions is not None

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`; of the regions alone, so that the summary's share is left out of the sum."""
        weights = self.forward(memory, caption_ids, caption_lengths, image_index).attention
        if weights is None or self.regions is None:
            raise NotImplementedError("this decoder does not look at regions")
        regions = weights if self.summary is None else weights[..., :-1]
        return regions / regions.sum(dim=-1, keepdim=True).clamp_min(1e-12)
