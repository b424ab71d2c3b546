"""What the HTTP API takes and returns; its OpenAPI schema is made from these classes."""

from typing import Literal

from pydantic import BaseModel, Field


class ModelFacts(BaseModel):
    """A model that is served."""

    name: str = Field(description="how requests name it")
    method: str = Field(description="method of the run, such as dual_transfer")
    task: Literal["caption", "label"]
    about: str = Field(description="what it does, in a line")
    attends: bool = Field(description="whether it can show what it attends to at each word")
    emotions: list[str] = Field(default=[], description="what captions can be asked for; empty: nothing")
    reads_images: bool
    reads_text: bool
    beams: int | None = Field(default=None, description="beam width of the run's configuration; null for classifiers")
    parameters: int = Field(description="number of weights")


class CaptionOut(BaseModel):
    """A caption."""

    text: str
    log_prob: float = Field(description="natural logarithm of its probability, EOS included")


class WordMap(BaseModel):
    """What the captioner attended to at one token."""

    word: str
    map: list[list[float]] = Field(description="rows of the map; its cells sum to 1")


class CaptionAnswer(BaseModel):
    """Captions of one image."""

    model: str
    captions: list[CaptionOut] = Field(description="best first")
    attention: list[WordMap] | None = Field(default=None, description="of the first caption; null when not asked for")
    seen: str | None = Field(default=None, description="the image as the model sees it, a data address; with attention")


class LabelOut(BaseModel):
    """A label."""

    name: str
    probability: float
    predicted: bool = Field(description="whether the probability reaches the threshold")


class LabelAnswer(BaseModel):
    """Labels of one image, or of a caption."""

    model: str
    labels: list[LabelOut] = Field(description="most probable first")
    threshold: float | None = Field(description="null where labels exclude each other: the most probable is predicted")


class Health(BaseModel):
    """Whether the server can answer."""

    status: Literal["ok"]
    models: list[str]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
