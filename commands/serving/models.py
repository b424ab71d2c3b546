"""The models that are served: loaded once, asked in batches."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image

from commands.serving.messages import (
    CaptionAnswer,
    CaptionOut,
    LabelAnswer,
    LabelOut,
    ModelFacts,
    WordMap,
)
from core.errors import UserError
from lightning_modules import (
    LoadedCaptioner,
    LoadedClassifier,
    PrefixClassification,
    load_captioner,
    load_classifier,
)
from lightning_modules.captioning import CaptioningModule
from lightning_modules.loading import load_module
from networks.generation.settings import DecodingSettings
from reporting.attention import seen_image
from reporting.page import thumbnail


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How captions of a request are decoded; requests with equal ones are decoded together.

    Attributes:
        model: name of the captioner.
        settings: settings of the search.
        attention: whether the attention at each word is returned.
        emotion: what captions are asked for, a label that the captioner knows; None: for nothing.
        seed: seed of sampling; None where nothing is sampled.
        alone: a number of its own for each request that samples: others in its batch would change its random numbers.
    """

    model: str
    settings: DecodingSettings
    attention: bool
    emotion: str | None = None
    seed: int | None = None
    alone: int | None = None


@dataclass(frozen=True, slots=True)
class Labelling:
    """Labels of a request: name of the classifier."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a request gives: an image, a text, or both."""

    image: Image.Image | None
    text: str | None = None


Answer = CaptionAnswer | LabelAnswer
Model = TypeVar("Model")


class Models:
    """Trained models by name.

    Args:
        loaded: name to model.
    """

    def __init__(self, loaded: dict[str, LoadedCaptioner | LoadedClassifier]) -> None:
        self.loaded = loaded

    def facts(self) -> list[ModelFacts]:
        """What there is to know about every model, in the order in which they were given."""
        return [_facts(name, model) for name, model in self.loaded.items()]

    def captioner(self, name: str | None) -> tuple[str, LoadedCaptioner]:
        """A captioner and its name; the first one without a name.

        Raises:
            UserError: there is none.
        """
        found = {key: model for key, model in self.loaded.items() if isinstance(model, LoadedCaptioner)}
        return _chosen(found, name, "captioner")

    def classifier(self, name: str | None) -> tuple[str, LoadedClassifier]:
        """A classifier and its name; the first one without a name.

        Raises:
            UserError: there is none.
        """
        found = {key: model for key, model in self.loaded.items() if isinstance(model, LoadedClassifier)}
        return _chosen(found, name, "classifier")

    def answer(self, key: Hashable, inputs: Sequence[Input]) -> list[Answer]:
        """Answers requests of one key, all in one batch."""
        if isinstance(key, Decoding):
            return list(_captions(key, self.captioner(key.model)[1], inputs))
        assert isinstance(key, Labelling)
        return list(_labels(key, self.classifier(key.model)[1], inputs))


def load_models(runs: Mapping[str, str], device: str) -> Models:
    """Loads captioners and classifiers.

    Args:
        runs: name to run folder or checkpoint.
        device: where they run.

    Raises:
        UserError: a run cannot be loaded, or needs features that came in files.
    """
    loaded: dict[str, LoadedCaptioner | LoadedClassifier] = {}
    for name, run in runs.items():
        load = load_captioner if isinstance(load_module(run), CaptioningModule) else load_classifier
        loaded[name] = load(Path(run), device)
    return Models(loaded)


def _chosen(found: dict[str, Model], name: str | None, kind: str) -> tuple[str, Model]:
    chosen = next(iter(found), None) if name is None else name
    if chosen is None:
        raise UserError(f"no {kind} is served here")
    if chosen not in found:
        raise UserError(f"there is no {kind} '{chosen}': expected one of {', '.join(found) or '(none)'}")
    return chosen, found[chosen]


def _facts(name: str, model: LoadedCaptioner | LoadedClassifier) -> ModelFacts:
    parameters = sum(weights.numel() for weights in model.module.parameters())
    if isinstance(model, LoadedCaptioner):
        return ModelFacts(
            name=name,
            method=model.module.method,
            task="caption",
            about=_about_captions(model),
            attends=model.module.captioner.attends,
            emotions=list(_emotions(model)),
            reads_images=True,
            reads_text=False,
            beams=model.settings.beams,
            parameters=parameters,
        )
    return ModelFacts(
        name=name,
        method=model.module.method,
        task="label",
        about=_about_labels(model),
        attends=False,
        reads_images=model.reads_images,
        reads_text=model.reads_text,
        beams=None,
        parameters=parameters,
    )


def _about_captions(captioner: LoadedCaptioner) -> str:
    """What a captioner does, in a line."""
    known = _emotions(captioner)
    return f"Writes captions, which can be asked for one of {named(known)}." if known else "Writes captions."


def _emotions(captioner: LoadedCaptioner) -> tuple[str, ...]:
    """Labels that captions can be asked for."""
    return captioner.module.condition_names if captioner.module.conditioned else ()


def _about_labels(classifier: LoadedClassifier) -> str:
    """What a classifier does, in a line."""
    reads = [name for name, yes in (("an image", classifier.reads_images), ("a caption", classifier.reads_text)) if yes]
    which = "which one" if classifier.threshold is None else "which"
    guides = "; can guide captioners (caption --control)" if isinstance(classifier.module, PrefixClassification) else ""
    return f"Says {which} of {named(classifier.label_names)} {' with '.join(reads)} has{guides}."


def named(names: Sequence[str], most: int = 6) -> str:
    """The number of labels and the first of their names.

    >>> named(["calm", "sad"]), named(list("abcdefgh"))
    ('2 labels (calm, sad)', '8 labels (a, b, c, d, e, f, ...)')
    """
    return f"{len(names)} labels ({', '.join([*names[:most], *(['...'] if len(names) > most else [])])})"


def _captions(key: Decoding, captioner: LoadedCaptioner, inputs: Sequence[Input]) -> Sequence[CaptionAnswer]:
    images = [one.image for one in inputs if one.image is not None]
    generator = None if key.seed is None else torch.Generator(captioner.device).manual_seed(key.seed)
    written = captioner.caption(images, key.settings, generator, emotion=key.emotion)
    answers = [
        CaptionAnswer(model=key.model, captions=[CaptionOut(text=text, log_prob=score) for text, score in captions])
        for captions in written
    ]
    if key.attention:
        texts = [captions[0][0] if captions else "" for captions in written]
        for answer, image, (words, maps) in zip(answers, images, captioner.attention(images, texts), strict=True):
            answer.attention = [WordMap(word=word, map=cells.tolist()) for word, cells in zip(words, maps, strict=True)]
            pixels = (seen_image(captioner.transform, image) * 255).round().astype("uint8")
            answer.seen = thumbnail(Image.fromarray(pixels))
    return answers


def _labels(key: Labelling, classifier: LoadedClassifier, inputs: Sequence[Input]) -> Sequence[LabelAnswer]:
    images = [one.image for one in inputs if one.image is not None] if classifier.reads_images else None
    texts = [one.text or "" for one in inputs] if classifier.reads_text else None
    answers = []
    for row in classifier.label(images, texts).tolist():
        scored = zip(classifier.label_names, row, classifier.predicted(row), strict=True)
        labels = [
            LabelOut(name=name, probability=value, predicted=chosen)
            for name, value, chosen in sorted(scored, key=lambda item: -item[1])
        ]
        answers.append(LabelAnswer(model=key.model, labels=labels, threshold=classifier.threshold))
    return answers
