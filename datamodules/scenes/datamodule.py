"""Data module of the synthetic scenes."""

from typing import Any, Literal

from PIL import Image

from core.errors import UserError
from datamodules.base import CaptionDataModule
from datamodules.loading.dataset import Example
from datamodules.readers.images import Normalization
from datamodules.scenes.bounds import image_blind_captions, scene_bounds
from datamodules.scenes.emotions import EMOTION_NAMES, emotion_labels
from datamodules.scenes.generator import LABEL_NAMES, Scene, Split, make_scene, scene_labels
from datamodules.scenes.grammar import scene_captions
from datamodules.scenes.render import MIN_SIZE, render


class SceneCaptions(CaptionDataModule):
    """Synthetic scenes with five captions each; needs no files, and held-out scenes show unseen combinations.

    What scores mean, measured with the default arguments on the test split by ``python -m datamodules.scenes``:

    =================  ======  =======  =======  =====
    captioner          BLEU-4  ROUGE-L  CIDEr-D  truth
    =================  ======  =======  =======  =====
    ceiling              .608     .771    3.929  1.000
    typical phrasing     .621     .780    3.949  1.000
    image-blind floor    .228     .420     .722   .062
    =================  ======  =======  =======  =====

    The ceiling is what a captioner reaches that sees everything and speaks as freely as the grammar. One that keeps to
    frequent phrasings, as greedy decoding does, can exceed it a little on BLEU; nobody exceeds a truth of 1.

    An example's `image` is the scene as JSON (`Scene.to_json`); the picture is drawn when it is opened.

    Args:
        root: not used, there are no files.
        num_train: training scenes.
        num_val: validation scenes.
        num_test: test scenes.
        scene_seed: another seed gives other scenes; what may stand together in a split never changes.
        max_groups: most groups of like objects in a scene, 2 or 3.
        max_objects: most objects in a scene.
        labels: multi-labels of an example: "objects" for the (colour, shape) types present, "emotions" for what
            `annotators` people report, "none".
        annotators: people who report an emotion for each scene.
        captions_only: draw no pictures, for a model that reads captions alone; most of the time goes into drawing.
        tokenizer: "word" for a vocabulary of the training captions, else a hub id or local folder of a tokeniser.
        max_tokens: longest caption in tokens with BOS and EOS; longer ones are cut.
        batch_size: images per batch and process.
        captions_per_image: captions of each training image that come along, drawn anew every epoch; None = all.
        num_workers: loader processes; 0 = the main process.
        image_size: height and width of the pictures, pixels, at least 64.
        normalization: colour scale, as the image tower's weights expect it.
        evaluate_on: split that validate, test and predict read instead of their own.
        encoder: frozen image tower whose features take the place of the pictures.
        encoder_weights: its weights.
        average_token_ids: see `CaptionDataModule`; only to repeat the paper.

    Raises:
        UserError: a number is out of range.
    """

    has_scenes = True

    def __init__(
        self,
        root: str = "",
        num_train: int = 20000,
        num_val: int = 500,
        num_test: int = 500,
        scene_seed: int = 0,
        max_groups: int = 2,
        max_objects: int = 4,
        labels: Literal["objects", "emotions", "none"] = "objects",
        annotators: int = 5,
        captions_only: bool = False,
        tokenizer: str = "word",
        max_tokens: int = 36,
        batch_size: int = 64,
        captions_per_image: int | None = None,
        num_workers: int = 0,
        image_size: int = MIN_SIZE,
        normalization: Normalization = "imagenet",
        evaluate_on: Split | None = None,
        encoder: str | None = None,
        encoder_weights: str | None = None,
        average_token_ids: bool = False,
    ) -> None:
        super().__init__(
            root=root,
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            batch_size=batch_size,
            captions_per_image=captions_per_image,
            num_workers=num_workers,
            image_size=image_size,
            normalization=normalization,
            evaluate_on=evaluate_on,
            encoder=encoder,
            encoder_weights=encoder_weights,
            average_token_ids=average_token_ids,
        )
        if image_size < MIN_SIZE:
            raise UserError(f"image_size is {image_size}: scenes need at least {MIN_SIZE} pixels to be legible")
        if captions_only and encoder is not None:
            raise UserError(
                f"captions_only is true with encoder={encoder}, which needs pictures: set one of the two off"
            )
        self.image_size, self.has_pictures = image_size, not captions_only
        self.scene_counts: dict[str, int] = {"train": num_train, "val": num_val, "test": num_test}
        for name, count in self.scene_counts.items():
            if count < 1:
                raise UserError(f"num_{name} is {count}: expected at least 1")
        if annotators < 1:
            raise UserError(f"annotators is {annotators}: expected at least 1")
        self.scene_seed, self.max_groups, self.max_objects = scene_seed, max_groups, max_objects
        make_scene("train", 0, scene_seed, max_groups=max_groups, max_objects=max_objects)  # refuses bad values now
        self.label_kind, self.annotators = labels, annotators
        self._bounds: dict[Split, dict[str, dict[str, float]]] = {}

    def load_examples(self, split: Split) -> list[Example]:
        """Makes the scenes of a split with captions and labels."""
        return [self._example(split, index) for index in range(self.scene_counts[split])]

    def _example(self, split: Split, index: int) -> Example:
        scene = make_scene(split, index, self.scene_seed, max_groups=self.max_groups, max_objects=self.max_objects)
        name = f"{split}-{index:06d}"
        return Example(
            image_id=name,
            image=scene.to_json(),
            captions=tuple(scene_captions(scene)),
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

    def open_image(self, example: Example) -> Image.Image:
        """Draws the scene of an example."""
        return render(Scene.from_json(example.image), self.image_size)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, in the order of `Example.labels`."""
        return {"objects": LABEL_NAMES, "emotions": EMOTION_NAMES}.get(self.label_kind, ())

    @property
    def num_labels(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    def scenes(self, split: Split) -> dict[str, str]:
        """Scenes of a split as JSON by image id, as `datamodules.scenes.truth_metric.SceneTruth` wants them."""
        return {str(example.image_id): example.image for example in self.examples(split)}

    def bounds(self, split: Split) -> dict[str, dict[str, float]]:
        """Ceiling, typical phrasing and image-blind floor of a split; see `datamodules.scenes.bounds`."""
        if split not in self._bounds:
            train = [self._example("train", index) for index in range(min(2000, self.scene_counts["train"]))]
            blind = image_blind_captions(
                [Scene.from_json(item.image) for item in train], [item.captions for item in train]
            )
            scenes = {name: Scene.from_json(text) for name, text in self.scenes(split).items()}
            self._bounds[split] = scene_bounds(scenes, self.references(split), blind)
        return self._bounds[split]

    def describe(self) -> dict[str, Any]:
        """Plain values that a checkpoint needs to serve a picture: also the label names."""
        return {**super().describe(), "label_names": list(self.label_names)}
