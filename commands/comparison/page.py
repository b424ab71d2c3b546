"""The comparison as one HTML page that needs nothing else: figures, tables, pictures with what every run said."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from commands.comparison.paired import Pair, RetrievedCaptions
from commands.comparison.tables import FLAG
from metrics.baselines.flags import flagged

_SIDE = 224
"""Longer side of a thumbnail, pixels."""
_LABELS = 5
"""Labels shown of each run, the most probable ones."""
_STYLE = """
:root { color-scheme: light; --line: #ddd; --dim: #666; --good: #dff3e4; --bad: #fbe3e0 }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; margin: 0 auto; padding: 24px; max-width: 1280px }
h1 { font-size: 22px; margin: 0 0 4px } h2 { font-size: 17px; margin: 32px 0 8px }
p { margin: 4px 0; color: var(--dim) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 8em }
thead th { border-bottom: 2px solid #888 }
tr.bound td { color: var(--dim) } td.best { font-weight: 700 } td.sure { background: var(--good) }
td.worse { background: var(--bad) }
img.figure { max-width: 100%; height: auto; display: block; margin: 8px 0 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(380px, 1fr)); gap: 16px }
.card { border: 1px solid var(--line); border-radius: 6px; padding: 12px; break-inside: avoid; min-width: 0 }
.card > img { width: 132px; height: 132px; object-fit: contain; background: #f4f4f4; float: left; margin: 0 12px 4px 0 }
.card h3 { font-size: 12px; font-weight: 600; margin: 0 0 4px; color: var(--dim); overflow-wrap: anywhere }
.card dl { margin: 0; clear: both } .card dt { font-size: 12px; font-weight: 600; margin-top: 8px }
.card dd { margin: 0; overflow-wrap: anywhere } .refs { font-size: 13px; color: var(--dim); overflow-wrap: anywhere }
.score { float: right; font-weight: 400; color: var(--dim) }
.label { display: inline-block; border: 1px solid var(--line); border-radius: 4px; padding: 0 5px;
  margin: 1px 3px 1px 0 }
.label.true { background: var(--good); border-color: #9fd3ae }
"""


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows.

    Attributes:
        title: heading.
        notes: lines below it.
        metrics: columns of the table.
        scores: run to metric to value.
        bounds: floor or ceiling to metric to value.
        pairs: bootstrap.
        figures: title to figure.
        evidence: predictions; None: no pictures are shown.
        pictures: how many.
        per_image: run to image id to a score shown beside what it said.
    """

    title: str
    notes: Sequence[str]
    metrics: Sequence[str]
    scores: Mapping[str, Mapping[str, float]]
    bounds: Mapping[str, Mapping[str, float]]
    pairs: Sequence[Pair]
    figures: Mapping[str, Figure]
    evidence: RetrievedCaptions | None
    pictures: int
    per_image: Mapping[str, Mapping[str, float]]


def render(page: Page) -> str:
    """The page as HTML."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{_text(page.title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{_text(page.title)}</h1>",
        *(f"<p>{_text(note)}</p>" for note in page.notes),
        "<h2>Metrics</h2>",
        score_table(page),
    ]
    if page.pairs:
        parts += ["<h2>Paired bootstrap</h2>", *pair_tables(page.pairs)]
    for title, figure in page.figures.items():
        source = data_address(png_bytes(figure), "png")
        parts.append(f'<h2>{_text(title)}</h2><img class="figure" alt="{_text(title)}" src="{source}">')
    if page.evidence is not None:
        parts += cards(page, page.evidence)
    return "\n".join([*parts, "</body></html>"]) + "\n"


def score_table(page: Page) -> str:
    """Runs and bounds; the best run of each column is bold."""
    best = {
        metric: (min if metric == "loss" else max)(
            (row[metric] for row in page.scores.values() if metric in row), default=None
        )
        for metric in page.metrics
    }
    head = "".join(f"<th>{_text(metric)}</th>" for metric in page.metrics)
    flags = flagged(page.scores, page.bounds)
    rows = []
    for kind, group in (("", page.scores), (' class="bound"', page.bounds)):
        for name, row in group.items():
            cells = ""
            for metric in page.metrics:
                mark = ' class="best"' if not kind and metric in row and row[metric] == best[metric] else ""
                cells += f"<td{mark}>{row[metric]:.3f}</td>" if metric in row else "<td></td>"
            flag = f' <span title="{_text(flags[name])}">{FLAG}</span>' if not kind and name in flags else ""
            rows.append(f"<tr{kind}><td>{_text(name)}{flag}</td>{cells}</tr>")
    below = "".join(f"<p>{FLAG} {_text(name)} is below its floor: {_text(why)}</p>" for name, why in flags.items())
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        + below
    )


def pair_tables(pairs: Sequence[Pair]) -> list[str]:
    """A row a pair, a column a score: the difference with its interval; coloured when 0 is outside."""
    metrics = list(pairs[0].scores)
    head = "".join(f"<th>{_text(metric)}</th>" for metric in metrics)
    rows = []
    for pair in pairs:
        cells = ""
        for metric in metrics:
            found = pair.scores[metric]
            mark = ' class="sure"' if found.low > 0 else ' class="worse"' if found.high < 0 else ""
            title = f"{found.a:.4f} and {found.b:.4f}, p {found.p:.3g}"
            interval = f"[{found.low:+.3f}, {found.high:+.3f}]"
            cells += f'<td{mark} title="{title}">{found.difference:+.3f}<br><small>{interval}</small></td>'
        rows.append(f"<tr><td>{_text(pair.b)} &minus; {_text(pair.a)}</td>{cells}</tr>")
    note = "<p>Difference and its 95% interval over images; green: all of it above 0, red: all of it below.</p>"
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return [note, f'<div class="wide">{table}</div>']


def cards(page: Page, evidence: RetrievedCaptions) -> list[str]:
    """Pictures, evenly spread over the data, with references and what every run said."""
    ids = list(evidence.references)
    step = max(1, len(ids) // page.pictures) if page.pictures else 1
    shown = ids[::step][: page.pictures]
    if not shown:
        return []
    parts = [f"<h2>{len(shown)} of {len(ids)} pictures</h2>", '<div class="cards">']
    for image_id in shown:
        picture = thumbnail(evidence, image_id)
        image = f'<img alt="" src="{picture}">' if picture else ""
        said = "".join(_said(page, evidence, name, image_id) for name in page.scores)
        truth = "<br>".join(_text(text) for text in evidence.references[image_id][:5])
        if evidence.probabilities:
            pairs = zip(evidence.label_names, evidence.targets[image_id], strict=False)
            truth = _labels([(label, True, "") for label, value in pairs if value >= 0.5]) + f"<div>{truth}</div>"
        head = f'{image}<h3>{_text(image_id)}</h3><div class="refs">{truth}</div>'
        parts.append(f'<div class="card">{head}<dl>{said}</dl></div>')
    return [*parts, "</div>"]


def _said(page: Page, evidence: RetrievedCaptions, name: str, image_id: str) -> str:
    score = page.per_image.get(name, {}).get(image_id)
    mark = "" if score is None else f'<span class="score" title="CIDEr-D of this image">{score:.2f}</span>'
    if image_id in evidence.captions.get(name, {}):
        body = _text(evidence.captions[name][image_id]) or "<i>(empty)</i>"
    elif image_id in evidence.probabilities.get(name, {}):
        true = {
            label
            for label, value in zip(evidence.label_names, evidence.targets[image_id], strict=False)
            if value >= 0.5
        }
        likely = sorted(evidence.probabilities[name][image_id].items(), key=lambda item: -item[1])[:_LABELS]
        body = _labels([(label, label in true, f" {value:.2f}") for label, value in likely])
    else:
        return ""
    return f"<dt>{_text(name)}{mark}</dt><dd>{body}</dd>"


def _labels(labels: Sequence[tuple[str, bool, str]]) -> str:
    return "".join(
        f'<span class="label{" true" if true else ""}">{_text(label)}{note}</span>' for label, true, note in labels
    )


def thumbnail(evidence: RetrievedCaptions, image_id: str) -> str | None:
    """A small picture as a data address; None when there is no picture."""
    try:
        picture = evidence.data.image(image_id)
    except (KeyError, ValueError, OSError):  # captions without pictures, or a picture that is gone
        return None
    if max(picture.size) > _SIDE:
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=82)
    return data_address(file.getvalue(), "jpeg")


def png_bytes(figure: Figure) -> bytes:
    """A figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def data_address(content: bytes, kind: str) -> str:
    """A picture written into the page itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _text(text: object) -> str:
    return html.escape(str(text))
