"""Using finished runs from Python: captioners and classifiers that take images.

Letters: B images, N captions, T tokens of the longest one, C labels, V vocabulary, h x w cells of an attention map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.batch import Batch
from core.errors import UserError, command
from core.inputs import WRONG_VALUES, damage
from datamodules.loading.tokenization import CaptionTokenizer, tokenizer_from_spec
from datamodules.readers.given_images import ImageLike, as_images, opened_image
from datamodules.readers.transforms import ImageTransform
from datamodules.stored_features.pictures import InProportion, Pictures, preparation, regions_of, stack_pictures
from datamodules.stored_features.store import EncoderSpec
from lightning_modules.base import BaseModule
from lightning_modules.captioning import CaptioningModule
from lightning_modules.loading import load_module
from networks.classifiers.base import LabelOutput
from networks.encoders.base import ImageEncoder
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings, Hypotheses
from networks.layers.sequences import CaptionOutput


class LoadedModel:
    """A trained module with everything it needs to take images.

    Args:
        module: the trained module, with its `inference` values.
        device: where it runs, as torch names it.
        reads_images: it needs images; false: nothing is prepared for them.

    Raises:
        UserError: it was trained on features that came in files, so that it cannot take an image.
    """

    def __init__(self, module: BaseModule, *, device: str | torch.device = "cpu", reads_images: bool = True) -> None:
        if reads_images:
            check_reads_images(module.inference)
        self.module = module.to(device).eval()
        self.device = torch.device(device)
        self.transform = ImageTransform.from_spec(module.inference["transform"])
        self.encoder: ImageEncoder | None = None
        if reads_images and "encoder" in module.inference:
            self.encoder = EncoderSpec(**module.inference["encoder"]).build().to(self.device)

    @property
    def preparation(self) -> ImageTransform | InProportion:
        """What turns an image into the tensor that is read; small, so that it can travel to other processes."""
        return self.transform if self.encoder is None else preparation(self.encoder, self.transform)

    def image_batch(self, images: Sequence[ImageLike]) -> Batch:
        """Prepares images as the data module did: tensors, or features of the frozen encoder."""
        prepare = self.preparation
        return self.prepared_batch(stack_pictures([prepare(opened_image(image, prepare.min_side)) for image in images]))

    def prepared_batch(self, pictures: Pictures) -> Batch:
        """A batch of images that went through `preparation`, on the model's device."""
        if self.encoder is None:
            return {"image": pictures.pixels.to(self.device)}
        features, mask = regions_of(self.encoder, pictures)
        return {"features": features, "feature_mask": mask}


class LoadedCaptioner(LoadedModel):
    """A trained captioner with everything it needs to caption images.

    Args:
        module: the trained module, with its `inference` values.
        device: where it runs, as torch names it.
    """

    module: CaptioningModule

    def __init__(self, module: CaptioningModule, *, device: str | torch.device = "cpu") -> None:
        super().__init__(module, device=device)
        self.tokenizer = tokenizer_from_spec(module.inference["tokenizer"])
        module.use_tokenizer(self.tokenizer)
        self.settings = DecodingSettings(**module.inference["decoding"])

    def decoding(
        self,
        *,
        beams: int | None = None,
        num_captions: int = 1,
        sample: bool = False,
        top_p: float = 0.9,
        temperature: float = 1.0,
        guidance: float | None = None,
        control_strength: float | None = None,
        control_rerank: float = 0.0,
    ) -> DecodingSettings:
        """The run's decoding settings with a reader's choices over them.

        Args:
            beams: width of the beam search; None: that of the run, or as many as there are captions.
            num_captions: captions for each image.
            sample: sample captions instead of searching for the most probable ones.
            top_p: probability mass that is sampled from.
            temperature: above 1 makes sampled captions more diverse.
            guidance: how strongly an emotion counts, see `networks.generation.guidance`; None: as in the run.
            control_strength: weight of the classifier that guides, see `networks.generation.control`; likewise.
            control_rerank: its weight in the choice among captions, in place of `mbr_reranking`; 0: it does not choose.

        Raises:
            UserError: a value is out of range, or a guidance is given to a captioner that knows no emotions.
        """
        if guidance is not None:
            self.module.conditions_learnt()
        if beams is None:
            beams = 1 if sample else max(self.settings.beams, num_captions)
        return replace(
            self.settings,
            beams=beams,
            num_captions=num_captions,
            sample=sample,
            top_p=top_p if sample else 1.0,
            temperature=temperature if sample else 1.0,
            mbr_reranking=self.settings.mbr_reranking and not control_rerank,
            control_rerank=control_rerank,
            guidance=self.settings.guidance if guidance is None else guidance,
            control_strength=self.settings.control_strength if control_strength is None else control_strength,
        )

    @torch.inference_mode()
    def caption(
        self,
        images: ImageLike | Sequence[ImageLike],
        settings: DecodingSettings | None = None,
        generator: torch.Generator | None = None,
        *,
        emotion: str | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Captions images, all in one batch.

        >>> load_captioner("runs/emotional_captions/demo").caption("a.jpg", emotion="sadness")  # doctest: +SKIP
        [[('a red circle above a blue square a gloomy scene', -3.9)]]

        Args:
            images: B of them, or a single one.
            settings: how to decode; None = as the run's configuration says.
            generator: randomness of sampling.
            emotion: what captions should say, a label that it was trained with; None: no
                condition.

        Returns:
            For each image its captions, best first, each with its log-probability (natural log, EOS included).

        Raises:
            DataError: an image cannot be read.
            UserError: the captioner does not know the emotion.
        """
        several = as_images(images)
        if not several:
            return []
        return self.written(self.search(self.image_batch(several), settings, generator, emotion))

    @torch.inference_mode()
    def search(
        self,
        batch: Batch,
        settings: DecodingSettings | None = None,
        generator: torch.Generator | None = None,
        emotion: str | None = None,
    ) -> Hypotheses:
        """Captions of a batch of `prepared_batch` as token ids; arguments as for `caption`."""
        memory, control = self.module.captioner.encode(batch), None
        if emotion is not None:
            images = len(next(iter(memory.values())))
            memory = self.module.under(memory, [self.module.label_number(emotion)] * images)
            control = self.module.control_for([emotion] * images)
        return decode(self.module.captioner, memory, settings or self.settings, generator, control)

    def written(self, found: Hypotheses) -> list[list[tuple[str, float]]]:
        """For each image its captions as text, best first, each with its log-probability."""
        return [
            [
                (self.tokenizer.decode(ids.tolist()), float(log_prob))
                for ids, log_prob, length in zip(rows, scores, lengths, strict=True)
                if length > 0
            ]
            for rows, scores, lengths in zip(found.token_ids, found.log_prob, found.lengths, strict=True)
        ]

    @torch.inference_mode()
    def score(self, images: ImageLike | Sequence[ImageLike], texts: str | Sequence[str]) -> CaptionOutput:
        """Scores one given caption for each image, token by token.

        Args:
            images: B of them, or a single one.
            texts: one caption for each.

        Returns:
            Logits `(M, V)` and targets `(M,)` of all real target tokens in the order of the captions, EOS included,
            and the attention `(B, T - 1, R)` where there is one.

        Raises:
            UserError: there are more of one than of the other.
        """
        several, captions = as_images(images), [texts] if isinstance(texts, str) else list(texts)
        if len(several) != len(captions):
            raise UserError(f"there are {len(several)} images and {len(captions)} texts: expected one each")
        batch = caption_batch(captions, self.tokenizer, self.device)
        memory = self.module.captioner.encode(self.image_batch(several))
        tokens = batch["caption_ids"], batch["caption_lengths"], batch["image_index"]
        output: CaptionOutput = self.module.captioner(memory, *tokens)
        return output

    @torch.inference_mode()
    def attention(
        self, images: ImageLike | Sequence[ImageLike], texts: str | Sequence[str] | None = None
    ) -> list[tuple[list[str], Tensor]]:
        """What the captioner attends to, word by word.

        Args:
            images: B of them, or a single one.
            texts: a caption for each; None: those that the captioner generates.

        Returns:
            For each image the tokens of its caption and one map for each token, `(tokens, h, w)`, float32 on the CPU;
            the cells of a map sum to 1.

        Raises:
            UserError: this captioner does not attend to regions, or images and texts differ in number.
        """
        if not self.module.captioner.attends:
            raise UserError(f"a captioner of method '{self.module.method}' does not attend to regions of this run")
        several = as_images(images)
        if texts is None:
            texts = [captions[0][0] for captions in self.caption(several)]
        captions = [texts] if isinstance(texts, str) else list(texts)
        if len(several) != len(captions):
            raise UserError(f"there are {len(several)} images and {len(captions)} texts: expected one each")
        memory = self.module.captioner.encode(self.image_batch(several))
        return self.module.caption_maps(memory, captions, self.tokenizer)


class LoadedClassifier(LoadedModel):
    """A trained classifier with everything it needs to label images, captions, or both.

    Args:
        module: the trained module, with its `inference` values; a method whose task is another may label, too, see
            `BaseModule.labeller`.
        device: where it runs, as torch names it.

    Attributes:
        label_names: C names, in the order of the probabilities.
        threshold: a label is predicted from this probability on, as chosen in training; 0.5 where none was. None:
            labels exclude each other, and the most probable one is predicted.
        reads_images: it needs images.
        reads_text: it needs captions.
    """

    def __init__(self, module: BaseModule, *, device: str | torch.device = "cpu") -> None:
        found = module.labeller()
        if found is None or not found.names:
            way_out = "; python cli.py caption captions images with it" if isinstance(module, CaptioningModule) else ""
            way_out = " (one with model.init_args.label_weight does)" if "label_weight" in module.hparams else way_out
            raise UserError(f"this run is of method '{module.method}', which gives no labels{way_out}")
        super().__init__(module, device=device, reads_images=found.reads_images)
        self.label_names, self.threshold = found.names, found.threshold
        self.reads_images, self.reads_text = found.reads_images, found.reads_text
        self.classifier = found.classifier.to(self.device).eval()
        self.tokenizer = tokenizer_from_spec(module.inference["tokenizer"]) if self.reads_text else None

    @torch.inference_mode()
    def label(
        self,
        images: ImageLike | Sequence[ImageLike] | None = None,
        texts: str | Sequence[str | Sequence[str]] | None = None,
    ) -> Tensor:
        """Probabilities of all labels, all in one batch.

        Args:
            images: B of them, or a single one; None for a model that reads captions alone, which ignores images.
            texts: captions of each, one or several, whose probabilities are averaged; None for a model that reads
                images alone, which ignores captions.

        Returns:
            `(B, C)`, float32 on the CPU, in the order of `label_names`.

        Raises:
            UserError: the model needs images or captions that are not given, or there are more of one than the other.
            DataError: an image cannot be read.
        """
        several = None if images is None else as_images(images)
        captions = [texts] if isinstance(texts, str) else texts
        count = self._count(several, captions)
        if not count:
            return torch.zeros(0, len(self.label_names))
        batch: Batch = {}
        if self.reads_images:
            batch |= self.image_batch(several or ())
        if self.tokenizer is not None:
            batch |= caption_batch(captions or (), self.tokenizer, self.device)
        return self.classify(batch, count)

    @torch.inference_mode()
    def classify(self, batch: Batch, count: int) -> Tensor:
        """Probabilities of all labels of a batch of `prepared_batch`, `(count, C)`, as `label` gives them."""
        output: LabelOutput = self.classifier({**batch, "image_id": [str(place) for place in range(count)]})
        return output.probabilities(count).cpu()

    def predicted(self, probabilities: Sequence[float]) -> list[bool]:
        """Which labels are predicted of an image with these C probabilities."""
        least = max(probabilities, default=0.0) if self.threshold is None else self.threshold
        return [value >= least for value in probabilities]

    def _count(self, images: Sequence[Any] | None, texts: Sequence[Any] | None) -> int:
        name = f"this model ({self.module.method})"
        if self.reads_images and images is None:
            raise UserError(f"{name} reads images: give one for each caption")
        if self.reads_text and texts is None:
            raise UserError(f"{name} reads captions: give a text for each image (--text)")
        if self.reads_images and self.reads_text and len(images or ()) != len(texts or ()):
            raise UserError(f"there are {len(images or ())} images and {len(texts or ())} texts: expected one each")
        return len((images if self.reads_images else texts) or ())


def load_captioner(path: str | Path, device: str | torch.device = "cpu", control: str | None = None) -> LoadedCaptioner:
    """Loads a captioner from a run folder or checkpoint; `control`: run of the prefix classifier that guides it.

    >>> load_captioner("runs/dual_transfer/demo").caption("picture.jpg")  # doctest: +SKIP
    [[('two red circles above a blue square', -3.2)]]

    Raises:
        UserError: no such checkpoint, or it is not a captioner; or the classifier does not fit.
    """
    module = load_module(path)
    if not isinstance(module, CaptioningModule):
        raise UserError(
            f"'{path}' is of method '{module.method}', which writes no captions; a classifier labels images: "
            f"{command('label', '--ckpt', path)}"
        )
    if control is not None:
        module.use_control(control)
    with damage(path, "a captioner", "give another run", causes=WRONG_VALUES):
        return LoadedCaptioner(module, device=device)


def load_classifier(path: str | Path, device: str | torch.device = "cpu") -> LoadedClassifier:
    """Loads a classifier into several labels from a run folder or checkpoint.

    >>> load_classifier("runs/ucm_multilabel/demo").label("picture.jpg")  # doctest: +SKIP
    tensor([[0.0121, 0.9834, ...]])

    Raises:
        UserError: no such checkpoint, or it labels nothing.
    """
    module = load_module(path)
    with damage(path, "a classifier", "give another run", causes=WRONG_VALUES):
        return LoadedClassifier(module, device=device)


def check_reads_images(inference: Mapping[str, Any]) -> None:
    """Makes sure that a model can be given images.

    Args:
        inference: the entry of its checkpoint.

    Raises:
        UserError: it was trained on features that came in files.
    """
    if "regions" in inference:
        raise UserError(
            f"this model reads features from files ({inference['regions']['files']}) and cannot read an image: make "
            "features of the new images in the same way and use python cli.py predict --ckpt_path RUN "
            "--data.init_args.regions=FILES"
        )


def caption_batch(texts: Sequence[str | Sequence[str]], tokenizer: CaptionTokenizer, device: torch.device) -> Batch:
    """Captions as a data module prepares them, one or several for each image."""
    several = [[text] if isinstance(text, str) else list(text) for text in texts]
    tokens = [torch.tensor(tokenizer.encode(text)) for captions in several for text in captions]
    counts = torch.tensor([len(captions) for captions in several])
    return {
        "caption_ids": pad_sequence(tokens, batch_first=True, padding_value=tokenizer.pad_id).to(device),
        "caption_lengths": torch.tensor([len(row) for row in tokens], device=device),
        "image_index": torch.repeat_interleave(torch.arange(len(several)), counts).to(device),
        "references": several,
    }
