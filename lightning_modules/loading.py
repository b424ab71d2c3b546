"""Opening finished runs: from a run folder or checkpoint to a captioner or classifier that takes pictures.

Letters: B images, C labels.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.batch import Batch
from core.checkpoints import read_checkpoint
from core.errors import UserError
from datamodules.loading.tokenization import CaptionTokenizer, tokenizer_from_spec
from datamodules.readers.images import ImageTransform, open_image, to_rgb
from datamodules.stored_features.store import EncoderSpec
from lightning_modules.base import METHODS, BaseModule, names_that_differ
from lightning_modules.captioning import CaptioningModule
from lightning_modules.classification import ClassificationModule
from networks.classifiers.base import Classifier, LabelOutput
from networks.encoders.base import ImageEncoder
from networks.generation.search import DecodingSettings, decode


def cnn_of_features(checkpoint: Mapping[str, Any], path: str, name: str) -> dict[str, Tensor]:
    """Weights of the frozen CNN that made the features of a run; none when the run read pictures.

    Args:
        checkpoint: of that run.
        path: where it is, for messages.
        name: the CNN that they are for.

    Raises:
        UserError: the features are those of another CNN, or its weights are gone.
    """
    if "encoder" not in checkpoint["inference"]:
        return {}
    spec = EncoderSpec(**checkpoint["inference"]["encoder"])
    if spec.name != name:
        raise UserError(
            f"init_from '{path}' learnt from features of '{spec.name}', but image_encoder is '{name}': give the same"
        )
    return dict(spec.build().state_dict())


def load_module(path: str | Path) -> BaseModule:
    """Builds the module that a checkpoint holds, without its data set and without downloading anything.

    Raises:
        UserError: the checkpoint cannot be read, is of an unknown method or does not fit this version.
    """
    checkpoint = read_checkpoint(path)
    method = checkpoint["inference"].get("method")
    if method not in METHODS:
        raise UserError(f"'{path}' is of method {method!r}: expected one of {', '.join(METHODS)}")
    settings, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    older = "was written by another version of this code: use that one (commit in its run.json)"
    if unknown := sorted(set(settings) - set(inspect.signature(METHODS[method]).parameters)):
        raise UserError(f"'{path}' {older}; its setting '{unknown[0]}' is not known here")
    module = METHODS[method](**settings)
    module.resize_buffers(weights)
    if wrong := names_that_differ(module.state_dict(), weights):
        raise UserError(f"'{path}' {older}; {len(wrong)} tensors differ, first '{wrong[0]}'")
    module.load_state_dict(weights)
    module.inference = checkpoint["inference"]
    return module.eval()


class LoadedCaptioner:
    """A trained captioner with everything it needs to caption pictures.

    Args:
        module: the trained module, with its `inference` values.
        device: where it runs, as torch names it.
    """

    def __init__(self, module: CaptioningModule, device: str | torch.device = "cpu") -> None:
        check_looks_itself(module.inference)
        self.module = module.to(device).eval()
        self.device = torch.device(device)
        self.transform = ImageTransform.from_spec(module.inference["transform"])
        self.tokenizer = tokenizer_from_spec(module.inference["tokenizer"])
        self.encoder: ImageEncoder | None = None
        if "encoder" in module.inference:
            self.encoder = EncoderSpec(**module.inference["encoder"]).build().to(self.device)
        module.captioner.unk_id = getattr(self.tokenizer, "unk_id", None)
        self.settings = DecodingSettings(**module.inference["decoding"])

    @torch.inference_mode()
    def caption(
        self,
        images: Sequence[Image.Image | str | Path],
        settings: DecodingSettings | None = None,
        generator: torch.Generator | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Captions pictures, all in one batch.

        Args:
            images: RGB pictures or paths, B of them.
            settings: how to decode; None = as the run's configuration says.
            generator: randomness of sampling.

        Returns:
            For each picture its captions, best first, each with its log-probability (natural log, EOS included).
        """
        if not images:
            return []
        memory = self.module.captioner.encode(self.batch(open_pictures(images, self.transform)))
        found = decode(self.module.captioner, memory, settings or self.settings, generator)
        return [
            [
                (self.tokenizer.decode(ids.tolist()), float(log_prob))
                for ids, log_prob, length in zip(rows, scores, lengths, strict=True)
                if length > 0
            ]
            for rows, scores, lengths in zip(found.token_ids, found.log_prob, found.lengths, strict=True)
        ]

    def batch(self, pictures: Sequence[Image.Image]) -> Batch:
        """Prepares RGB pictures as the data module did: tensors, or features of the frozen encoder."""
        return picture_batch(pictures, self.transform, self.encoder, self.device)


def load_captioner(path: str | Path, device: str | torch.device = "cpu") -> LoadedCaptioner:
    """Loads a captioner from a run folder or checkpoint.

    >>> load_captioner("runs/dual_transfer/demo").caption(["picture.jpg"])  # doctest: +SKIP
    [[('two red circles above a blue square', -3.2)]]

    Raises:
        UserError: no such checkpoint, or it is not a captioner.
    """
    module = load_module(path)
    if not isinstance(module, CaptioningModule):
        raise UserError(f"'{path}' is of method '{module.method}', which writes no captions")
    return LoadedCaptioner(module, device)


class LoadedClassifier:
    """A trained classifier with everything it needs to label pictures, captions, or both.

    Args:
        module: the trained module, with its `inference` values; a method whose task is another may label pictures too,
            see `BaseModule.image_classifier`.
        device: where it runs, as torch names it.

    Attributes:
        label_names: C names, in the order of the probabilities.
        threshold: a label is predicted from this probability on, as chosen in training; 0.5 where none was.
        reads_images: it needs pictures.
        reads_text: it needs captions.
    """

    def __init__(self, module: BaseModule, device: str | torch.device = "cpu") -> None:
        self.module = module.to(device).eval()
        self.device = torch.device(device)
        self.label_names: tuple[str, ...] = tuple(module.inference.get("label_names", ()))
        if isinstance(module, ClassificationModule):
            classifier: Classifier | None = module.classifier
            self.threshold = module.threshold.item()
            self.reads_images, self.reads_text = module.reads_images, module.reads_text
        else:
            classifier, self.threshold, self.reads_images, self.reads_text = module.image_classifier(), 0.5, True, False
        if classifier is None or not self.label_names:
            way_out = " (one with model.init_args.label_weight does)" if "label_weight" in module.hparams else ""
            raise UserError(f"this run is of method '{module.method}', which gives no labels{way_out}")
        self.classifier = classifier
        if self.reads_images:
            check_looks_itself(module.inference)
        self.transform = ImageTransform.from_spec(module.inference["transform"])
        self.tokenizer = tokenizer_from_spec(module.inference["tokenizer"]) if self.reads_text else None
        self.encoder: ImageEncoder | None = None
        if self.reads_images and "encoder" in module.inference:
            self.encoder = EncoderSpec(**module.inference["encoder"]).build().to(self.device)

    @torch.inference_mode()
    def label(
        self,
        images: Sequence[Image.Image | str | Path] | None = None,
        texts: Sequence[str | Sequence[str]] | None = None,
    ) -> Tensor:
        """Probabilities of all labels, all in one batch.

        Args:
            images: B pictures, RGB or paths; None for a model that reads captions alone, which leaves pictures unseen.
            texts: what is said of each, one caption or several, whose probabilities are averaged; None for a model that
                looks at pictures alone, which leaves captions unread.

        Returns:
            `(B, C)`, float32 on the CPU, in the order of `label_names`.

        Raises:
            UserError: the model needs pictures or captions that are not given, or there are more of one than the other.
        """
        count = self._count(images, texts)
        if not count:
            return torch.zeros(0, len(self.label_names))
        batch: Batch = {"image_id": [str(place) for place in range(count)]}
        if self.reads_images:
            pictures = open_pictures(images or (), self.transform)
            batch |= picture_batch(pictures, self.transform, self.encoder, self.device)
        if self.tokenizer is not None:
            batch |= caption_batch(texts or (), self.tokenizer, self.device)
        output: LabelOutput = self.classifier(batch)
        return output.probabilities(count).cpu()

    def _count(self, images: Sequence[Any] | None, texts: Sequence[Any] | None) -> int:
        name = f"this model ({self.module.method})"
        if self.reads_images and images is None:
            raise UserError(f"{name} looks at pictures: give one for each caption")
        if self.reads_text and texts is None:
            raise UserError(f"{name} reads captions: give a text for each picture (--text)")
        if self.reads_images and self.reads_text and len(images or ()) != len(texts or ()):
            raise UserError(f"there are {len(images or ())} pictures and {len(texts or ())} texts: expected one each")
        return len((images if self.reads_images else texts) or ())


def load_classifier(path: str | Path, device: str | torch.device = "cpu") -> LoadedClassifier:
    """Loads a classifier into several labels from a run folder or checkpoint.

    >>> load_classifier("runs/ucm_multilabel/demo").label(["picture.jpg"])  # doctest: +SKIP
    tensor([[0.0121, 0.9834, ...]])

    Raises:
        UserError: no such checkpoint, or it labels nothing.
    """
    return LoadedClassifier(load_module(path), device)


def open_pictures(images: Sequence[Image.Image | str | Path], transform: ImageTransform) -> list[Image.Image]:
    """Reads pictures that are paths, as RGB."""
    return [
        to_rgb(image) if isinstance(image, Image.Image) else open_image(image, min_side=transform.min_side)
        for image in images
    ]


def picture_batch(
    pictures: Sequence[Image.Image], transform: ImageTransform, encoder: ImageEncoder | None, device: torch.device
) -> Batch:
    """RGB pictures as a data module prepares them: tensors, or features of its frozen encoder."""
    image = torch.stack([transform(picture) for picture in pictures]).to(device)
    if encoder is None:
        return {"image": image}
    features, mask = encoder.regions(image)
    return {"features": features, "feature_mask": mask}


def check_looks_itself(inference: Mapping[str, Any]) -> None:
    """Makes sure that a model can be given pictures.

    Args:
        inference: the entry of its checkpoint.

    Raises:
        UserError: it was trained on features that came in files.
    """
    if "regions" in inference:
        raise UserError(
            f"this model reads features from files ({inference['regions']['files']}) and cannot look at a picture: "
            "make features of the new pictures in the same way and use python cli.py predict --ckpt_path RUN "
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
