"""Pages that need no other file: the comparison of runs, the report of one run, and the page of ``demo``.

Tables, figures and images are inside of the page; every text is escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from core.text import visible
from metrics.bootstrap import Pair
from metrics.names import MetricName, metric
from reporting.tables import FLAG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).parent / "templates"
_ONE_PANEL = 1000
"""Pixels of width up to which a figure stays readable on a narrow screen."""
CAPTION_SCORE = "CIDEr-D of this image"
_SIDE = 224
"""Longer side of a thumbnail, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label on a card.

    Attributes:
        name: name of the label.
        is_true: whether the image has it.
        probability: predicted; None where the label is only named.
    """

    name: str
    is_true: bool
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one run predicted for one image.

    Attributes:
        run: its name.
        caption: caption of a captioner.
        labels: labels of a classifier, the most probable ones.
        score: score of this prediction alone; None: unknown.
        score_name: what the score is.
    """

    run: str
    caption: str = ""
    labels: Sequence[Label] = ()
    score: float | None = None
    score_name: str = CAPTION_SCORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One image with what is known and predicted about it.

    Attributes:
        image_id: identifier.
        image: thumbnail as a data address; None when there is no image.
        references: some of its captions.
        labels: its true labels.
        entries: one per run.
        groups: why it is shown, such as "best"; a reader can choose one.
        figure: a larger figure of the prediction as a data address, such as its attention.
    """

    image_id: str
    image: str | None
    references: Sequence[str]
    labels: Sequence[Label]
    entries: Sequence[Entry]
    groups: Sequence[str] = ()
    figure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Content of the page.

    Attributes:
        title: heading.
        notes: lines below it.
        metrics: columns of the table.
        scores: run to metric to value.
        baselines: baseline or upper bound to metric to value.
        flags: run to the reason why it is below a baseline.
        pairs: paired bootstrap, all of the same scores.
        figures: title to figure.
        cards: images shown.
        images: number of images that there are.
    """

    title: str
    notes: Sequence[str]
    metrics: Sequence[MetricName]
    scores: Mapping[str, Mapping[str, float]]
    baselines: Mapping[str, Mapping[str, float]]
    flags: Mapping[str, str]
    pairs: Sequence[Pair] = ()
    figures: "Mapping[str, Figure]" = field(default_factory=dict)
    cards: Sequence[Card] = ()
    images: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts and numbers that a reader can sort.

    Attributes:
        title: heading.
        columns: headings of the columns.
        rows: as many cells each as there are columns; None is an empty cell.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]

    @property
    def texts(self) -> list[bool]:
        """Whether a column holds texts, which begin on the left and take several lines, or numbers.

        >>> Table(title="", columns=("word", "images"), rows=[("sea", "3"), ("ship", None)]).texts
        [True, False]
        """
        return [any(_is_text(row[place]) for row in self.rows) for place in range(len(self.columns))]


def _is_text(cell: str | int | float | None) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report.

    Attributes:
        title: heading.
        notes: lines below it.
        tables: shown in two columns where there is room.
        figures: title to figure, drawn or as the bytes of a PNG file.
    """

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: "Mapping[str, Figure | bytes]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics of one evaluation of a run.

    Attributes:
        title: heading.
        metrics: columns of the table.
        scores: the run's own row.
        baselines: baseline or upper bound to metric to value.
        flag: why the run is below a baseline; empty when it is not.
        others: metrics without a column.
    """

    title: str
    metrics: Sequence[MetricName]
    scores: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    flag: str = ""
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Content of a run's report.

    Attributes:
        title: heading.
        notes: lines below it.
        warnings: what a reader has to know before believing the rest.
        facts: what was run, name to value.
        evaluations: the metrics.
        sections: everything else that is shown before the images.
        cards: images shown.
        images: number of images that there are.
        settings: the configuration, dotted name to value.
    """

    title: str
    notes: Sequence[str]
    warnings: Sequence[str]
    facts: Mapping[str, str]
    evaluations: Sequence[Evaluation]
    sections: Sequence[Section]
    cards: Sequence[Card] = ()
    images: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.tests["with_panels"] = _has_panels
    return environment


def _has_panels(address: str) -> bool:
    """Whether a figure is so wide that a narrow screen scrolls it: shrunk, its panels would be unreadable."""
    head = base64.b64decode(address.partition(",")[2][:32])  # of a PNG file, which has its width at byte 16
    return int.from_bytes(head[16:20]) > _ONE_PANEL


def render(page: Page) -> str:
    """The comparison as HTML; every text in it is escaped."""
    best = {
        item.key: item.best(row[item.key] for row in page.scores.values() if item.key in row) for item in page.metrics
    }
    return (
        _environment()
        .get_template("compare.html")
        .render(
            page=page,
            best=best,
            flag=FLAG,
            pair_metrics=[metric(key) for key in page.pairs[0].scores] if page.pairs else [],
            figures={title: data_address(png_bytes(figure), "png") for title, figure in page.figures.items()},
        )
    )


def render_report(report: Report) -> str:
    """The report of a run as HTML; every text in it is escaped."""
    figures = [
        {
            title: data_address(figure if isinstance(figure, bytes) else png_bytes(figure), "png")
            for title, figure in section.figures.items()
        }
        for section in report.sections
    ]
    groups = list(dict.fromkeys(group for card in report.cards for group in card.groups))
    return (
        _environment()
        .get_template("report.html")
        .render(page=report, sections=zip(report.sections, figures, strict=True), flag=FLAG, groups=groups)
    )


def render_demo(models: Sequence[Mapping[str, Any]], *, max_upload: int, most: int) -> str:
    """The page that captions and labels an image of the reader; every text in it is escaped.

    Args:
        models: facts about every model, see `commands.serving.messages.ModelFacts`.
        max_upload: bytes of an upload at most.
        most: beams and captions at most.
    """
    page = {"title": "Captioners", "notes": ["Choose an image, or drop one here; it stays on this machine."]}
    return _environment().get_template("demo.html").render(page=page, models=models, max_upload=max_upload, most=most)


def _shown(value: Any) -> Any:
    """A value as the page shows it; what a macro has written is escaped already."""
    return visible(value, keep="\n\t") if isinstance(value, str) and not hasattr(value, "__html__") else value


def thumbnail(image: Image.Image) -> str:
    """A small image as a data address."""
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=82)
    return data_address(file.getvalue(), "jpeg")


def png_bytes(figure: "Figure") -> bytes:
    """A figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def data_address(content: bytes, kind: str) -> str:
    """An image as a ``data:`` address, which a page can hold itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
