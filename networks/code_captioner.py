"""A captioner of pictures over a code: image, code, recurrent decoder, with or without attention.

Letters: B images, R regions, F their width, E width they are projected to, N captions, T tokens of the longest one,
M scored tokens, D code width.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from networks.batch import Batch
from networks.captioner import Captioner, CaptionOutput, Memory, State, select_rows, target_mask
from networks.code_decoder import CodeDecoder
from networks.errors import UserError
from networks.image_codes import ImageCoder
from networks.positions import pooled

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

    def forward(self, regions: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, R, F)` and a mask `(B, R)` to `(B, R', E)`; all regions must be real."""
        if mask is not None and not bool(mask.all()):
            raise UserError("a region is masked: this attention takes whole grids; use the attention RNN for others")
        if self.side is not None:
            regions, _ = pooled(regions, None, self.side)
        return cast(Tensor, self.dropout(self.norm(self.project(regions))))


class CodeCaptioner(Captioner):
    """Image to code to caption.

    Args:
        coder: makes the codes of images.
        decoder: writes a caption from a code; with an attention it looks at regions or the summary in every step.
        regions: projection of the regions for that attention; None: it does not look at them.
        summary: projection of what the code is made of, the coder's last hidden layer; it joins the regions as one more
            of them, or is all that there is to look at. None: it is not looked at.
        entry: how a code enters the decoder: as its initial ``state`` or as its ``first_word``, before BOS and from a
            state of zeros (Vinyals et al. 2015, "Show and Tell"; there it is also an embedding of the image vector).
        code_dropout: share of the code dropped in training.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling.

    Raises:
        UserError: `first_word` and the code is not as wide as a word.
    """

    def __init__(
        self,
        coder: ImageCoder,
        decoder: CodeDecoder,
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
        if entry == "first_word" and coder.project.out_features != decoder.words.out_features:
            raise UserError(
                f"a code of {coder.project.out_features} numbers cannot be the first word, which has "
                f"{decoder.words.out_features}"
            )
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = decoder.vocabulary.out_features, bos_id, eos_id, pad_id
        self.coder, self.decoder, self.entry = coder, decoder, entry
        self.regions, self.summary = regions, summary
        self.code_dropout = nn.Dropout(code_dropout)

    def encode(self, batch: Batch) -> Memory:
        """Codes of the images `code` `(B, D)`, what made them `hidden` and, with attention, `features` and `keys`."""
        regions, mask = self.coder.regions(batch)
        hidden = self.coder.hidden(regions, mask)
        memory = {"code": self.coder.codes(hidden), "hidden": hidden}
        seen: list[Tensor] = []
        if self.regions is not None:
            seen.append(self.regions(regions, mask))
        if self.summary is not None:
            seen.append(self.summary(hidden.unsqueeze(1), None))
        if seen and self.decoder.attention is not None:
            memory["features"] = torch.cat(seen, dim=1)
            memory["keys"] = self.decoder.attention.keys(memory["features"])
        return memory

    def similarity_state(self, memory: Memory) -> Tensor:
        """What training images are known by: the layer that codes are made of, `(B, width)`, float32."""
        return memory["hidden"].float()

    def start(self, code: Tensor) -> State:
        """State of the decoder before BOS, from codes `(B, D)`."""
        code = self.code_dropout(code)
        if self.entry == "state":
            return self.decoder.start(code)
        zero = self.decoder.zero(len(code), code.device)
        return self.decoder.run(code.unsqueeze(1), zero)[1]

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `Captioner.step`."""
        if state is None:
            state = self.start(memory["code"])
        outputs, state = self.decoder.run(self.decoder.read(token).unsqueeze(1), state)
        return self.decoder.scores(outputs[:, 0], memory.get("features"), memory.get("keys"))[0], state

    def forward(
        self,
        memory: Memory,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        own_words: float = 0.0,
    ) -> CaptionOutput:
        """Scores every real target token, see `Captioner.forward`; `own_words`: see `CodeDecoder.forced`."""
        state = select_rows(self.start(memory["code"]), image_index)
        outputs = self.decoder.forced(state, caption_ids, caption_lengths, own_words)
        mask = target_mask(caption_lengths, caption_ids.shape[1])
        image = image_index[mask.nonzero()[:, 0]]
        features, keys = (memory[key][image] if key in memory else None for key in ("features", "keys"))
        logits, weights = self.decoder.scores(outputs, features, keys)
        attention = None
        if weights is not None:
            attention = weights.new_zeros(*mask.shape, weights.shape[1])
            attention[mask] = weights
        return CaptionOutput(logits, caption_ids[:, 1:][mask], attention)

    @property
    def attends(self) -> bool:
        """Whether the decoder looks at regions."""
        return self.regions is not None

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`; of the regions alone, so that the summary's share is left out of the sum."""
        weights = cast(CaptionOutput, self(memory, caption_ids, caption_lengths, image_index)).attention
        if weights is None or self.regions is None:
            raise NotImplementedError("this decoder does not look at regions")
        regions = weights if self.summary is None else weights[..., :-1]
        return regions / regions.sum(dim=-1, keepdim=True).clamp_min(1e-12)
