"""What a job does with a batch of decoded pictures: one class for each command, called with columns, giving columns.

An instance is called with a `datamodules.sources.decoding.DecodedBatch` and knows nothing of files, parts and
processes, so that another engine can call it in the same way.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import torch

from callbacks.pseudo_labels import fingerprint
from core.batch import Batch
from core.errors import UserError
from core.seeds import derive_seed
from datamodules.stored_features.pictures import Pictures
from lightning_modules.serving import LoadedCaptioner, LoadedClassifier, LoadedModel
from networks.generation.consensus import expected_agreement
from networks.generation.settings import DecodingSettings, Hypotheses

DIGITS = 4
"""Decimals of probabilities: further ones depend on the number of threads and the processor."""
Columns = dict[str, list[Any]]


class Task(ABC):
    """Gives the columns of a batch: ``image``, those of the task, and ``error``, which is null where all is well.

    Args:
        model: the trained model.
        settings: what the columns depend on besides model and pictures, plain values.
        columns: those of the task.

    Attributes:
        command: name of the command.
    """

    command: str

    def __init__(self, *, model: LoadedModel, settings: Mapping[str, Any], columns: Mapping[str, pa.DataType]) -> None:
        self.model, self.settings = model, dict(settings)
        text = pa.string()
        self.schema = pa.schema([("image", text), *columns.items(), ("error", text)])

    def model_digest(self) -> str:
        """Digest of the weights and of everything else that the model was saved with."""
        digest = hashlib.blake2b(fingerprint(self.model.module).encode(), digest_size=16)
        digest.update(json.dumps(self.model.module.inference, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def __call__(self, batch: Mapping[str, Any]) -> Columns:
        """The columns of a batch of decoded pictures, in the order of `schema`."""
        errors = [None if error is None else str(error) for error in batch["error"]]
        good = [row for row, error in enumerate(errors) if error is None]
        found: Columns = {name: [None] * len(errors) for name in self.schema.names}
        found["image"], found["error"] = [str(name) for name in batch["image"]], errors
        if good:
            pixels, sizes = (torch.as_tensor(batch[name])[good] for name in ("pixels", "sizes"))
            first = int(batch["position"][0])
            for name, values in self.columns(self.model.prepared_batch(Pictures(pixels, sizes)), first).items():
                for row, value in zip(good, values, strict=True):
                    found[name][row] = value
        return found

    @abstractmethod
    def columns(self, batch: Batch, first: int) -> Columns:
        """The columns of the task.

        Args:
            batch: batch of pictures that could be decoded.
            first: position of the batch in the source.
        """

    @abstractmethod
    def text(self, row: Mapping[str, Any]) -> str:
        """What a text file beside a picture says, of its row."""


class CaptionTask(Task):
    """Captions: the best as ``caption`` with its ``log_prob``; all of them as ``captions`` where there are several.

    Args:
        model: the captioner.
        decoding: how captions are searched for.
        emotions: what captions are asked for, at least one; None: for nothing. With several each has its captions, and
            ``emotions`` says which.
        seed: seed of sampling.
    """

    command = "caption"
    model: LoadedCaptioner

    def __init__(
        self,
        *,
        model: LoadedCaptioner,
        decoding: DecodingSettings,
        emotions: Sequence[str | None] = (None,),
        seed: int = 0,
    ) -> None:
        self.decoding, self.emotions, self.seed = decoding, list(emotions), seed
        columns: dict[str, pa.DataType] = {"caption": pa.string(), "log_prob": pa.float32()}
        self.several = decoding.num_captions > 1 or len(self.emotions) > 1
        if self.several:
            columns |= {"captions": _list(pa.string()), "log_probs": _list(pa.float32())}
        if len(self.emotions) > 1:
            columns["emotions"] = _list(pa.string())
        settings = {**asdict(decoding), **({"seed": seed} if decoding.sample else {})}
        settings |= {} if self.emotions == [None] else {"emotions": self.emotions}
        guide = model.module.control_module
        settings |= {} if guide is None else {"control": fingerprint(guide)}
        super().__init__(model=model, settings=settings, columns=columns)

    def columns(self, batch: Batch, first: int) -> Columns:
        """Searches or samples; random numbers depend on the position alone."""
        generator = torch.Generator(self.model.device).manual_seed(derive_seed(self.seed, first))
        by_emotion = [
            [[(text, _rounded(score), emotion) for text, score in captions] for captions in self.model.written(found)]
            for emotion in self.emotions
            for found in [self.model.search(batch, self.decoding, generator, emotion)]
        ]
        images = [[one for captions in image for one in captions] for image in zip(*by_emotion, strict=True)]
        texts, scores, emotions = ([[one[place] for one in image] for image in images] for place in range(3))
        found: Columns = {"caption": [_first(row, "") for row in texts], "log_prob": [_first(row) for row in scores]}
        found |= {"captions": texts, "log_probs": scores} if self.several else {}
        return {**found, **({"emotions": emotions} if len(self.emotions) > 1 else {})}

    def text(self, row: Mapping[str, Any]) -> str:
        """All captions, one a line."""
        return "".join(f"{caption}\n" for caption in row.get("captions") or [row["caption"]])


class LabelTask(Task):
    """Labels: the predicted ones as ``labels``, and the probability of each in a column with its name.

    Args:
        model: the classifier.

    Raises:
        UserError: it needs captions, or labels are called like columns.
    """

    command = "label"
    model: LoadedClassifier

    def __init__(self, *, model: LoadedClassifier) -> None:
        if model.reads_text or not model.reads_images:
            raise UserError("this model reads captions, which very many pictures do not have: give one that reads none")
        if clash := sorted({"image", "labels", "error"} & set(model.label_names)):
            raise UserError(f"label '{clash[0]}' is called like a column of the table: rename it and train again")
        columns = {"labels": _list(pa.string()), **dict.fromkeys(model.label_names, pa.float32())}
        super().__init__(model=model, settings={"threshold": model.threshold}, columns=columns)

    def columns(self, batch: Batch, first: int) -> Columns:
        """Probabilities, and the labels from the threshold on, the most probable first."""
        names = self.model.label_names
        table = self.model.classify(batch, len(batch.get("image", batch.get("features", ())))).tolist()
        found: Columns = {"labels": []}
        for row in table:
            order = sorted(zip(row, names, self.model.predicted(row), strict=True), key=lambda one: -one[0])
            found["labels"].append([name for _, name, chosen in order if chosen])
        return {**found, **{name: [_rounded(row[place]) for row in table] for place, name in enumerate(names)}}

    def text(self, row: Mapping[str, Any]) -> str:
        """The predicted labels with commas between them."""
        return ", ".join(row["labels"]) + "\n"


class TagTask(Task):
    """Captions for training: with how sure the captioner is of each, and which captioner it was.

    ``confidence`` is the geometric mean of the probabilities of the tokens, ``agreement`` the expected agreement of the
    caption with those of the other beams (see `networks.generation.consensus`), both in [0, 1].

    Args:
        model: the captioner.
        decoding: how captions are searched for.
        sampling: how ``captions`` are drawn beside them; None: there are none.
        seed: of the draw.
    """

    command = "tag"
    model: LoadedCaptioner

    def __init__(
        self,
        *,
        model: LoadedCaptioner,
        decoding: DecodingSettings,
        sampling: DecodingSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.decoding, self.sampling, self.seed = decoding, sampling, seed
        number = pa.float32()
        columns = {"caption": pa.string(), "log_prob": number, "tokens": pa.int32(), "confidence": number}
        columns |= {"agreement": number, "source": pa.string()}
        settings = asdict(decoding)
        if sampling is not None:
            columns["captions"] = _list(pa.string())
            settings["sampling"] = {**asdict(sampling), "seed": seed}
        super().__init__(model=model, settings=settings, columns=columns)
        self._source = f"{model.module.method}:{self.model_digest()[:12]}"

    def columns(self, batch: Batch, first: int) -> Columns:
        """The best caption of each picture, and different ones that are drawn."""
        found: Hypotheses = self.model.search(batch, self.decoding)
        best = [_first(captions, ("", -math.inf)) for captions in self.model.written(found)]
        tokens = found.lengths[:, 0].tolist()
        eos = self.model.module.captioner.eos_id
        agreements = expected_agreement(found.token_ids, found.log_prob, found.lengths, eos)
        drawn = {} if self.sampling is None else {"captions": self._drawn(batch, self.sampling, first)}
        return {
            "caption": [text for text, _ in best],
            "log_prob": [_rounded(score) for _, score in best],
            "tokens": tokens,
            "confidence": [_rounded(math.exp(score / max(1, n))) for (_, score), n in zip(best, tokens, strict=True)],
            "agreement": [_rounded(value) for value in agreements],
            "source": [self._source] * len(best),
            **drawn,
        }

    def _drawn(self, batch: Batch, sampling: DecodingSettings, first: int) -> list[list[str]]:
        generator = torch.Generator(self.model.device).manual_seed(derive_seed(self.seed, first))
        found = self.model.written(self.model.search(batch, sampling, generator))
        return [list(dict.fromkeys(text for text, _ in captions if text)) for captions in found]

    def text(self, row: Mapping[str, Any]) -> str:
        """The caption."""
        return f"{row['caption']}\n"


def _list(kind: pa.DataType) -> pa.DataType:
    """Lists as Parquet names them, so that a file has the same type."""
    return pa.list_(pa.field("element", kind))


def _first(values: list[Any], otherwise: Any = None) -> Any:
    return values[0] if values else otherwise


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None
