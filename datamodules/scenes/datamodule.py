"""Data module of the synthetic scenes."""

from typing import Any, Literal

from core.errors import UserError
from datamodules.base import CaptionDataModule
from datamodules.readers.records import Example
from datamodules.scenes.baselines import language_only_captions, scene_baselines
from datamodules.scenes.emotions import EMOTION_NAMES, emotion_labels
from datamodules.scenes.feelings import feeling_captions, fresh_feeling_caption
from datamodules.scenes.generator import LABEL_NAMES, Scene, Split, make_scene, scene_labels
from datamodules.scenes.grammar import fresh_caption, scene_captions
from datamodules.scenes.image import SceneImage
from datamodules.scenes.render import MIN_SIZE

_BASELINE_SCENES = 2000
"""Training scenes that baselines are made of."""


class SceneCaptions(CaptionDataModule):
    """Synthetic scenes with five captions each; needs no files, and held-out scenes show unseen combinations.

    What scores mean, measured with the default arguments on the test split by ``python -m datamodules.scenes``:

    ======================  ======  =======  =======  =======
    captioner               BLEU-4  ROUGE-L  CIDEr-D  fact F1
    ======================  ======  =======  =======  =======
    upper bound               .608     .771    3.929    1.000
    modal-template oracle     .621     .780    3.949    1.000
    language-only baseline    .228     .420     .722     .062
    ======================  ======  =======  =======  =======

    The upper bound is a captioner that knows the scene and draws its wording from the grammar. One that prefers
    frequent wordings, as greedy decoding does, can exceed it a little on BLEU; no captioner exceeds a fact F1 of 1.

    An example's `image` is a `SceneImage`, which is drawn when it is opened.

    Args:
        num_train: training scenes.
        num_val: validation scenes.
        num_test: test scenes.
        scene_seed: another seed gives other scenes; what may stand together in a split never changes.
        max_groups: most groups of like objects in a scene, 2 or 3.
        max_objects: most objects in a scene.
        labels: multi-labels of an example: "objects" for the (colour, shape) types present, "emotions" for what
            `annotators` people report, "none".
        annotators: people who report an emotion for each scene.
        feelings: each of a scene's captions also says what another annotator feels, in one of several ways; its
            condition is that emotion. The pointing game does not know such captions.
        captions_only: draw no images, for a model that reads captions alone; most of the time goes into drawing.
        batch_size: images per batch and process.
        num_workers: loader processes; 0: the main process.
        image_size: height and width of the images, pixels, at least 64.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self,
        *,
        num_train: int = 20000,
        num_val: int = 500,
        num_test: int = 500,
        scene_seed: int = 0,
        max_groups: int = 2,
        max_objects: int = 4,
        labels: Literal["objects", "emotions", "none"] = "objects",
        annotators: int = 5,
        feelings: bool = False,
        captions_only: bool = False,
        batch_size: int = 64,
        num_workers: int = 0,
        image_size: int = MIN_SIZE,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, image_size=image_size, **kwargs)
        if image_size < MIN_SIZE:
            raise UserError(f"image_size is {image_size}: scenes need at least {MIN_SIZE} pixels to be legible")
        encoder = self.feature_source.encoder
        if captions_only and encoder is not None:
            raise UserError(f"captions_only is true with encoder={encoder}, which needs images: set one of the two off")
        self.image_size, self.has_images = image_size, not captions_only
        self.scene_counts: dict[str, int] = {"train": num_train, "val": num_val, "test": num_test}
        for name, count in self.scene_counts.items():
            if count < 1:
                raise UserError(f"num_{name} is {count}: expected at least 1")
        if annotators < 1:
            raise UserError(f"annotators is {annotators}: expected at least 1")
        self.scene_seed, self.max_groups, self.max_objects = scene_seed, max_groups, max_objects
        make_scene("train", 0, scene_seed, max_groups=max_groups, max_objects=max_objects)  # refuses bad values now
        self.label_kind, self.annotators, self.feelings = labels, annotators, feelings
        self._rows: dict[Split, dict[str, dict[str, float]]] = {}
        self._fixed: dict[str, str] | None = None  # captions of the language-only baseline

    def load_examples(self, split: Split) -> list[Example]:
        """Makes the scenes of a split with captions and labels."""
        return [self._example(split, index) for index in range(self.scene_counts[split])]

    def _example(self, split: Split, index: int) -> Example:
        scene = make_scene(split, index, self.scene_seed, max_groups=self.max_groups, max_objects=self.max_objects)
        name = f"{split}-{index:06d}"
        captions, conditions = feeling_captions(scene) if self.feelings else (scene_captions(scene), ())
        return Example(
            image_id=name,
            image=SceneImage(scene.to_json(), self.image_size),
            captions=tuple(captions),
            conditions=conditions,
            labels=self._labels(scene),
            origin=f"synthetic scene {name}, seed {self.scene_seed}",
        )

    def _labels(self, scene: Scene) -> tuple[float, ...]:
        match self.label_kind:
            case "objects":
                return scene_labels(scene)
            case "emotions":
                return emotion_labels(scene, self.annotators)
            case _:
                return ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, in the order of `Example.labels`."""
        return {"objects": LABEL_NAMES, "emotions": EMOTION_NAMES}.get(self.label_kind, ())

    @property
    def condition_names(self) -> tuple[str, ...]:
        """The emotions, where captions say how a scene feels."""
        return EMOTION_NAMES if self.feelings else ()

    def baselines(self, split: Split) -> dict[str, dict[str, float]]:
        """Upper bound, modal-template oracle and language-only baseline, see `datamodules.scenes.baselines`."""
        if split not in self._rows:
            if self._fixed is None:
                count = min(_BASELINE_SCENES, self.scene_counts["train"])
                known = self._examples.get("train") or [self._example("train", index) for index in range(count)]
                scenes = [Scene.from_json(item.image_name) for item in known[:count]]
                self._fixed = language_only_captions(scenes, [item.captions for item in known[:count]])
            fixed = self._fixed
            described = {name: Scene.from_json(text) for name, text in self.scenes(split).items()}
            speak = fresh_feeling_caption if self.feelings else fresh_caption
            self._rows[split] = scene_baselines(described, self.references(split), fixed, speak)
        return self._rows[split]
