"""Reference to the image of a synthetic scene."""

from dataclasses import dataclass

from PIL import Image

from datamodules.readers.image_refs import ImageRef
from datamodules.scenes.generator import Scene
from datamodules.scenes.render import render


@dataclass(frozen=True, slots=True)
class SceneImage(ImageRef):
    """A scene that is drawn when it is opened.

    Attributes:
        description: the scene as JSON, from `Scene.to_json`.
        size: height and width of the image, pixels.
    """

    description: str
    size: int

    @property
    def id(self) -> str:
        """The description: equal scenes are the same image."""
        return self.description

    @property
    def scene(self) -> str:
        """The description."""
        return self.description

    def open(self, min_side: int = 0) -> Image.Image:
        """Draws the scene."""
        del min_side
        return render(Scene.from_json(self.description), self.size)

    def stamp(self) -> str:
        """The description; the size is part of the transform that features are stored for."""
        return self.description
