"""Attention RNN captioning: grid features of a CNN, a GRU or LSTM that looks at them, four kinds of attention.

After "Show, Attend and Tell" (Xu et al. 2015) with uniform, Bahdanau, dot-product and multi-head attention side by
side. The CNN is frozen (features from the data module's store, or computed here), fine-tuned from an epoch on, or
trained from random weights.

Letters: B images, N captions, T tokens of the longest one, M scored tokens, R regions.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torchmetrics import MeanMetric

from core.batch import Batch
from core.errors import UserError
from datamodules.scenes.pointing import Places, named_places, normalised_entropy, pointing_credit
from lightning_modules.base import Schedule
from lightning_modules.captioning import CaptioningModule, Generated
from lightning_modules.parts.settings import check_one_encoder, scheduled_share, words_of
from networks.captioners.attention_rnn import AttentionRNNCaptioner
from networks.encoders.build import build_encoder
from networks.encoders.freezing import parameters_of_map
from networks.layers.attention import AttentionName, build_attention
from networks.layers.pooling import Pooling
from networks.layers.recurrent import CellName
from networks.layers.sequences import CaptionOutput, Memory, target_mask
from networks.losses.attention import doubly_stochastic_penalty, supervision_loss
from networks.losses.words import word_loss, word_shares


class AttentionRNN(CaptioningModule):
    """A recurrent captioner with attention over the regions of an image.

    Logged besides what all captioners log, both on the references under teacher forcing:

    * ``val/attention_entropy``: entropy of the attention against the uniform one's, mean over all steps; 1 is uniform.
    * ``val/pointing``, on the synthetic scenes with a word vocabulary: accuracy in the pointing game while objects are
      named, see `datamodules.scenes.pointing`; for uniform attention that is the expected area of a hit.
    * ``val/pointing_noun``: the same at the last word of every name alone; those before it say which object is meant.

    Multi-head attention counts with the mean over its heads.

    Args:
        attention: ``uniform``, ``bahdanau``, ``dot`` (the three published) or ``multi_head``.
        image_encoder: CNN that belongs to this module, see `networks.encoders.build.build_encoder`; None: the data
            module's frozen `encoder` gives features.
        image_weights: its weights: a published name, a local file, or None = random.
        unfreeze_epoch: epoch, from 0, from which the CNN learns, too; None: it stays frozen to the last bit.
        gradient_checkpointing: keep no activations inside the CNN's blocks.
        cell: ``gru`` or ``lstm``.
        region_dim: width that regions are projected to (published: 256).
        hidden_dim: width of the recurrent state (published: 512).
        word_dim: width of word embeddings; that of the file with `word_vectors`.
        attention_dim: width in which state and regions are compared.
        heads: of ``multi_head``.
        dot_bias: the query of ``dot`` has a bias, as in the published sample code; the text has none.
        dot_scaled: ``dot`` is divided by the root of its width.
        dropout: share dropped from words and before the vocabulary layer.
        region_dropout: share dropped from projected regions.
        gated: scale the context by a learnt gate (Xu et al. 2015).
        positions: 2-D encoding of the regions' positions.
        tied_embeddings: the vocabulary layer's weights are the embedding.
        pooled_side: average the grid into this many rows and columns; None: as the CNN gives it.
        start_pooling: the decoder's first state is made of the CNN's regions pooled in this way, see
            `networks.layers.pooling`; None: of the mean of the projected ones (published).
        word_vectors: text file of pretrained word vectors (GloVe's or word2vec's format); read once, when a run
            starts.
        lr: peak learning rate.
        lr_pretrained: peak learning rate of the CNN, whatever its weights start from.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after it.
        label_smoothing: share of the target probability spread over all tokens.
        doubly_stochastic: weight of the penalty on attention that a caption spreads unevenly over the regions.
        bag_of_words_weight: weight of a loss that asks the decoder's first state for the words of the picture's
            captions, see `networks.losses.words`: with few pictures it makes them better known. 0: none.
        attention_supervision: weight of the loss that draws attention to the objects named; synthetic scenes only.
        scheduled_sampling: share of the words read that are the model's own at the end of the schedule (Bengio et al.
            2015), drawn word by word; 0: teacher forcing.
        scheduled_sampling_start: last epoch, from 0, without own words; -1: there are some in the first epoch.
        scheduled_sampling_epochs: epochs in which the share grows; 0: it is whole from the start.
        val_images: pictures captioned in every validation; None = all.
        beams: beam width in testing and prediction.
        length_penalty: see `networks.generation.search`.
        no_repeat_ngram_size: likewise.
        mbr_reranking: rank the captions of the beam search by their agreement, see `networks.generation.consensus`;
            wants 5 beams or more.
        retrieval_images: training pictures whose captions have a voice in the consensus (see
            `networks.generation.retrieval`); the checkpoint carries all training captions then. 0: none.
        retrieval_weight: part of the consensus that is theirs, in [0, 1].
        max_tokens: longest generated caption in tokens, EOS included.
        init_from: run or checkpoint whose weights this run starts from; with an `image_encoder` it may have been
            trained on stored features of the same one, frozen.
        vocab_size: tokens of the data module's tokeniser.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling behind captions.
        feature_dim: width of the data module's features, None when it gives pictures.
        feature_grid: rows and columns of their grid.

    Raises:
        UserError: neither or both of data module and this module have an encoder, or values do not fit together.
    """

    method: ClassVar[str] = "attention_rnn"
    cnn: ClassVar[str | None] = "captioner.encoder."
    captioner: AttentionRNNCaptioner

    def __init__(
        self,
        attention: AttentionName = "bahdanau",
        image_encoder: str | None = None,
        image_weights: str | None = None,
        unfreeze_epoch: int | None = None,
        gradient_checkpointing: bool = False,
        cell: CellName = "lstm",
        region_dim: int = 256,
        hidden_dim: int = 512,
        word_dim: int = 256,
        attention_dim: int = 256,
        heads: int = 4,
        dot_bias: bool = False,
        dot_scaled: bool = False,
        dropout: float = 0.3,
        region_dropout: float = 0.0,
        gated: bool = False,
        positions: bool = False,
        tied_embeddings: bool = False,
        pooled_side: int | None = None,
        start_pooling: Pooling | None = None,
        word_vectors: str | None = None,
        lr: float = 5e-4,
        lr_pretrained: float = 1e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        label_smoothing: float = 0.0,
        doubly_stochastic: float = 0.0,
        bag_of_words_weight: float = 0.0,
        attention_supervision: float = 0.0,
        scheduled_sampling: float = 0.0,
        scheduled_sampling_start: int = 0,
        scheduled_sampling_epochs: int = 0,
        val_images: int | None = 1000,
        beams: int = 3,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        mbr_reranking: bool = False,
        retrieval_images: int = 0,
        retrieval_weight: float = 0.7,
        max_tokens: int = 36,
        init_from: str | None = None,
        vocab_size: int = 10_000,
        bos_id: int = 1,
        eos_id: int = 2,
        pad_id: int = 0,
        feature_dim: int | None = None,
        feature_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        own = {"image_weights": image_weights is not None, "unfreeze_epoch": unfreeze_epoch is not None}
        check_one_encoder(image_encoder, feature_dim, own)
        encoder = None
        if image_encoder is not None:
            # random weights here: published ones come in `load_pretrained`, so that serving never looks for them
            encoder = build_encoder(image_encoder, None, gradient_checkpointing=gradient_checkpointing)
        self.captioner = AttentionRNNCaptioner(
            attention=build_attention(
                attention,
                region_dim=region_dim,
                hidden_dim=hidden_dim,
                attention_dim=attention_dim,
                heads=heads,
                bias=dot_bias,
                scaled=dot_scaled,
            ),
            vocab_size=vocab_size,
            feature_dim=encoder.grid_dim if encoder is not None else feature_dim or 0,
            encoder=encoder,
            cell=cell,
            word_dim=word_dim,
            dropout=dropout,
            region_dropout=region_dropout,
            gated=gated,
            positions=positions,
            tied_embeddings=tied_embeddings,
            pooled_side=pooled_side,
            start_pooling=start_pooling,
            bos_id=bos_id,
            eos_id=eos_id,
            pad_id=pad_id,
        )
        self._map_parameters = () if encoder is None else parameters_of_map(encoder)
        self._encoder_learns = False
        self._let_encoder_learn(unfreeze_epoch == 0)
        self.extra.update({f"{stage}/attention_entropy": MeanMetric() for stage in ("val", "test")})
        for name in ("pointing", "pointing_noun"):
            self.extra.update({f"{stage}/{name}": MeanMetric() for stage in ("val", "test")})
        self.add_retrieval()
        self.words = nn.Linear(hidden_dim, vocab_size) if bag_of_words_weight else None
        self._first_state: Tensor | None = None
        self._share_found: float | None = None
        self._attention: Tensor | None = None

    def setup(self, stage: str) -> None:
        """Refuses what several processes cannot do; see `BaseModule.setup` for the rest.

        Raises:
            UserError: several processes and a CNN that begins to learn in mid-run: gradients of parameters that were
                frozen at the start would not be exchanged.
        """
        epoch = self.hparams["unfreeze_epoch"]
        if stage == "fit" and epoch and self.trainer.world_size > 1:
            raise UserError(
                f"unfreeze_epoch is {epoch} with {self.trainer.world_size} processes: train with unfreeze_epoch=null "
                "first, then start a second run with init_from and unfreeze_epoch=0"
            )
        super().setup(stage)

    # weights to start from

    def load_pretrained(self) -> None:
        """Loads the CNN's weights and the word vectors that the arguments name.

        Raises:
            UserError: they cannot be reached or do not fit.
        """
        settings = self.hparams
        encoder = self.captioner.encoder
        if encoder is not None and settings["image_weights"] is not None:
            loaded = build_encoder(settings["image_encoder"], settings["image_weights"])
            encoder.load_state_dict(loaded.state_dict())
        if settings["word_vectors"] is not None:
            words = words_of(self.inference["tokenizer"])
            self._share_found = self.captioner.load_word_vectors(settings["word_vectors"], words)
            rank_zero_info(
                f"word vectors {settings['word_vectors']}: {self._share_found:.1%} of {len(words)} words found"
            )

    def on_train_start(self) -> None:
        """Logs the share of the vocabulary that has pretrained vectors."""
        if self._share_found is not None:
            for logger in self.loggers:
                logger.log_metrics({"train/word_vectors_found": self._share_found}, step=0)

    # the CNN: frozen until its epoch

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the CNN that make its map."""
        if self.captioner.encoder is not None:
            names = set(self._map_parameters)
            yield from (value for name, value in self.captioner.encoder.named_parameters() if name in names)

    def _let_encoder_learn(self, learns: bool) -> None:
        """Frozen means: no gradients, evaluation mode, absent from the optimiser."""
        self._encoder_learns = learns
        if self.captioner.encoder is not None:
            self.captioner.encoder.requires_grad_(False)
            for parameter in self.pretrained_parameters():
                parameter.requires_grad_(learns)
            self.captioner.encoder.train(learns and self.training)

    def train(self, mode: bool = True) -> "AttentionRNN":
        """Sets the mode; a frozen CNN stays in evaluation mode."""
        super().train(mode)
        if self.captioner.encoder is not None and not self._encoder_learns:
            self.captioner.encoder.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Lets the CNN learn from its epoch on: it joins the optimiser and its schedule as a group of its own."""
        epoch = self.hparams["unfreeze_epoch"]
        if self._encoder_learns or epoch is None or self.current_epoch < epoch:
            return
        self._let_encoder_learn(True)
        rate = self.hparams["lr_pretrained"]
        optimizer = self.trainer.optimizers[0]
        group = {"params": list(self.pretrained_parameters()), "lr": rate, "initial_lr": rate, "name": "pretrained"}
        optimizer.add_param_group(group)
        for config in self.trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
            scheduler.base_lrs.append(rate)
            scheduler.lr_lambdas.append(scheduler.lr_lambdas[0])
            group["lr"] = rate * scheduler.lr_lambdas[0](scheduler.last_epoch)
        rank_zero_info(f"epoch {self.current_epoch}: the image encoder learns from now on")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also finds out whether the CNN had begun to learn; the optimiser is made after this."""
        super().on_load_checkpoint(checkpoint)
        states = checkpoint.get("optimizer_states") or [{"param_groups": []}]
        if any(group.get("name") == "pretrained" for group in states[0]["param_groups"]):
            self._let_encoder_learn(True)

    # loss

    def sampling_probability(self) -> float:
        """Share of the words read that are the model's own in this epoch's training."""
        return scheduled_share(self.hparams, self.current_epoch)

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Scores all captions; in training with scheduled sampling."""
        memory = self.captioner.encode(batch)
        output = self.captioner.forward(
            memory,
            batch["caption_ids"],
            batch["caption_lengths"],
            batch["image_index"],
            self.sampling_probability() if self.training else 0.0,
        )
        self._attention = None if self.training else output.attention  # for `update_extra`
        self._first_state = self.captioner.similarity_state(memory) if self.words is not None else None
        return memory, output

    def training_loss(self, batch: Batch, output: CaptionOutput) -> Tensor:
        """Cross-entropy, the term on the first state and the two on the attention."""
        loss = super().training_loss(batch, output)
        if self.words is not None:
            assert self._first_state is not None, "captions are scored before their loss"
            targets = word_shares(batch, len(self._first_state), self.words.out_features)
            loss = loss + self.hparams["bag_of_words_weight"] * word_loss(self.words(self._first_state), targets)
            self._first_state = None
        assert output.attention is not None
        if weight := self.hparams["doubly_stochastic"]:
            loss = loss + weight * doubly_stochastic_penalty(output.attention, batch["caption_lengths"])
        if weight := self.hparams["attention_supervision"]:
            places = self._places(batch, output.attention)
            if places is None:
                raise UserError(
                    f"attention_supervision is {weight}, but nothing is known of where things are: it needs "
                    "datamodules.scenes.SceneCaptions with tokenizer: word; set it to 0"
                )
            loss = loss + weight * supervision_loss(output.attention[places.caption, places.step], places.inside)
        return loss

    # figures on the attention

    def grid(self, regions: int) -> tuple[int, int]:
        """Rows and columns of so many regions."""
        known = self.hparams["feature_grid"]
        if known is not None and known[0] * known[1] == regions:
            return int(known[0]), int(known[1])
        return super().grid(regions)

    def update_extra(self, batch: Batch, written: Generated) -> None:
        """Entropy of the attention, and the pointing game where it can be played."""
        del written
        attention, self._attention = self._attention, None
        if attention is None or not len(batch["caption_ids"]):
            return
        own, stage = self.own_metrics(), "test" if self.trainer.testing else "val"
        mask = target_mask(batch["caption_lengths"], batch["caption_ids"].shape[1])
        regions = batch["feature_mask"].sum(1)[batch["image_index"]] if "feature_mask" in batch else None
        counts = None if regions is None else regions.unsqueeze(1).expand_as(mask)[mask]
        own[f"{stage}/attention_entropy"].update(normalised_entropy(attention[mask], counts))
        places = self._places(batch, attention)
        if places is not None and len(places.step):
            credit = pointing_credit(attention[places.caption, places.step], places.hit)
            own[f"{stage}/pointing"].update(credit)
            own[f"{stage}/pointing_noun"].update(credit[places.noun])

    def _places(self, batch: Batch, attention: Tensor) -> Places | None:
        """Where captions name objects; None where that is not known."""
        if "scene" not in batch or self._tokenizer is None or self.inference["tokenizer"]["kind"] != "word":
            return None
        texts = [self._tokenizer.decode(ids) for ids in batch["caption_ids"][:, 1:].tolist()]
        grid = self.grid(attention.shape[2])
        return named_places(batch["scene"], batch["image_index"].tolist(), texts, grid, attention.device)
