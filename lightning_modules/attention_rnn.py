"""Attention RNN captioning: grid features of a CNN, a GRU or LSTM that attends to them, four kinds of attention.

After "Show, Attend and Tell" (Xu et al. 2015) with uniform, Bahdanau, dot-product and multi-head attention side by
side. The CNN is frozen (features from the data module's store, or computed here), fine-tuned from an epoch on, or
trained from random weights.

Letters: B images, N captions, M scored tokens, R regions.
"""

from typing import Any, ClassVar

from lightning.pytorch.utilities import rank_zero_info

from core.batch import Batch
from core.text import visible
from lightning_modules.captioning import CaptioningModule
from lightning_modules.parts.attention import AttendingModule, AttentionOptions
from lightning_modules.parts.bag_of_words import BagOfWordsOptions
from lightning_modules.parts.encoder import UnfreezingEncoder
from lightning_modules.parts.sampling import SamplingOptions
from lightning_modules.parts.tokens import words_of
from networks.captioners.attention_rnn import AttentionRNNCaptioner
from networks.encoders.base import ImageEncoder
from networks.layers.pooling import Pooling
from networks.layers.recurrent import CellName
from networks.layers.sequences import CaptionOutput, Memory


class AttentionRNN(
    UnfreezingEncoder, SamplingOptions, AttentionOptions, AttendingModule, BagOfWordsOptions, CaptioningModule
):
    """A recurrent captioner with attention over the regions of an image.

    Scheduled sampling draws words from the decoder's own prediction, one by one. The bag-of-words loss asks the
    decoder's first state.

    Args:
        cell: ``gru`` or ``lstm``.
        hidden_dim: width of the recurrent state (published: 512).
        word_dim: width of word embeddings; that of the file with `word_vectors`.
        dropout: share dropped from words and before the vocabulary layer.
        normalize: layer normalisation of the projected regions (published: none).
        gated: scale the context by a learnt gate (Xu et al. 2015).
        positions: 2-D encoding of the regions' positions.
        tied_embeddings: the vocabulary layer's weights are the embedding.
        start_pooling: the decoder's first state is made of the CNN's regions pooled in this way, see
            `networks.layers.pooling`; None: of the mean of the projected ones (published).
        word_vectors: text file of pretrained word vectors (GloVe's or word2vec's format); read once, when a run
            starts.
        lr: peak learning rate.
        lr_pretrained: peak learning rate of the image encoder, whatever its weights start from.

    Raises:
        UserError: neither or both of data module and this module have an encoder, or values do not match.
    """

    method: ClassVar[str] = "attention_rnn"
    cnn: ClassVar[str | None] = "captioner.encoder."
    captioner: AttentionRNNCaptioner

    def __init__(
        self,
        *,
        cell: CellName = "lstm",
        hidden_dim: int = 512,
        word_dim: int = 256,
        dropout: float = 0.3,
        normalize: bool = True,
        gated: bool = False,
        positions: bool = False,
        tied_embeddings: bool = False,
        start_pooling: Pooling | None = None,
        word_vectors: str | None = None,
        lr: float = 5e-4,
        lr_pretrained: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(lr=lr, lr_pretrained=lr_pretrained, **kwargs)
        self.word_vectors = word_vectors
        encoder = self.new_encoder(unfreeze_epoch=self.unfreeze_epoch is not None)
        self.captioner = AttentionRNNCaptioner(
            attention=self.new_attention(hidden_dim),
            feature_dim=encoder.grid_dim if encoder is not None else self.feature_dim or 0,
            encoder=encoder,
            cell=cell,
            word_dim=word_dim,
            dropout=dropout,
            region_dropout=self.region_dropout,
            normalize=normalize,
            gated=gated,
            positions=positions,
            tied_embeddings=tied_embeddings,
            pooled_side=self.pooled_side,
            start_pooling=start_pooling,
            gradient_checkpointing=self.gradient_checkpointing,
            **self.token_ids,
        )
        self.choose_learning()
        self.let_encoder_learn(self.unfreeze_epoch == 0)
        self.complete_captioner()
        self.add_bag_of_words(hidden_dim)
        self._share_found: float | None = None

    @property
    def own_encoder(self) -> ImageEncoder | None:
        """The captioner's CNN."""
        return self.captioner.encoder

    def load_pretrained(self) -> None:
        """Loads the CNN's weights and the word vectors that the options name.

        Raises:
            UserError: they cannot be reached or do not match.
        """
        super().load_pretrained()
        if self.word_vectors is not None:
            words = words_of(self.inference["tokenizer"])
            self._share_found = self.captioner.load_word_vectors(self.word_vectors, words)
            found = f"{self._share_found:.1%} of {len(words)} words found"
            rank_zero_info(visible(f"word vectors {self.word_vectors}: {found}"))

    def on_train_start(self) -> None:
        """Logs the share of the vocabulary that has pretrained vectors."""
        if self._share_found is not None:
            for logger in self.loggers:
                logger.log_metrics({"train/word_vectors_found": self._share_found}, step=0)

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Scores all captions; in training with scheduled sampling."""
        memory = self.captioner.encode(batch)
        return memory, self.captioner.forward(*self.captions_of(batch, memory), self.sampling_share())
