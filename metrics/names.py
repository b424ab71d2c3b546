"""The names of metrics: one line each says how a metric is ordered, titled, printed and compared.

A new metric is one function that computes it and one line in `METRICS`. A metric without a line still is logged and
written; it is then titled by its key, counts as better when higher, and is printed behind the table instead of in it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

Kind = Literal["captions", "labels", "codes"]
Direction = Literal["max", "min", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricName:
    """What tables and figures know about a metric.

    Attributes:
        key: name in logs and files, without the split: ``bleu4`` of ``val/bleu4``.
        title: heading of its column.
        kind: what it is about; None for metrics that every method has, such as the loss.
        direction: whether more or less of it is better; "none": neither is, as with a length.
        digits: decimals printed.
        rank: order of importance within its kind, from 1; figures draw the most important ones. 0: never drawn unless
            it is asked for.
        paired: of labels: a comparison of two runs tests the difference.
        column: it has a column in tables that compare runs.
        report: it has a column in the table printed after a test, too.
    """

    key: str
    title: str
    kind: Kind | None = None
    direction: Direction = "max"
    digits: int = 3
    rank: int = 0
    paired: bool = False
    column: bool = True
    report: bool = True

    def format(self, value: float | None) -> str:
        """A value as tables print it; empty when there is none."""
        return "" if value is None else f"{value:.{self.digits}f}"

    def best(self, values: Iterable[float]) -> float | None:
        """The best of some values; None when there are none, or none is better than another."""
        if self.direction == "none":
            return None
        return (max if self.direction == "max" else min)(values, default=None)


_logged = partial(MetricName, column=False, report=False)
"""A metric that is logged and printed behind the tables."""
METRICS = (
    MetricName(key="bleu1", title="BLEU-1", kind="captions"),
    MetricName(key="bleu2", title="BLEU-2", kind="captions"),
    MetricName(key="bleu3", title="BLEU-3", kind="captions"),
    MetricName(key="bleu4", title="BLEU-4", kind="captions", rank=2),
    MetricName(key="rouge_l", title="ROUGE-L", kind="captions", rank=3),
    MetricName(key="cider_d", title="CIDEr-D", kind="captions", rank=1),
    MetricName(key="fact_f1", title="fact F1", kind="captions", rank=4),
    MetricName(key="top1", title="top 1", kind="labels", rank=5, paired=True),
    MetricName(key="top2", title="top 2", kind="labels"),
    MetricName(key="top3", title="top 3", kind="labels", paired=True),
    MetricName(key="recall3", title="recall@3", kind="labels", rank=4, paired=True),
    MetricName(key="micro_f1", title="micro F1", kind="labels", rank=2, paired=True),
    MetricName(key="macro_f1", title="macro F1", kind="labels", rank=3, paired=True),
    MetricName(key="macro_ap", title="macro AP", kind="labels", rank=1, paired=True),
    MetricName(key="lift_over_prior", title="lift over prior", kind="labels", report=False),
    MetricName(key="recall_at_1", title="recall@1", kind="codes", rank=1, report=False),
    MetricName(key="recall_at_5", title="recall@5", kind="codes", rank=2, report=False),
    MetricName(key="recall_at_10", title="recall@10", kind="codes", report=False),
    *(
        _logged(key=f"fact_{name}", title=f"true {name}", kind="captions")
        for name in ("objects", "colours", "sizes", "counts", "relations")
    ),
    MetricName(key="label_accuracy", title="label found"),
    MetricName(key="prefix_accuracy", title="label found, all beginnings"),
    _logged(key="meteor", title="METEOR", kind="captions"),
    _logged(key="spice", title="SPICE", kind="captions"),
    MetricName(key="alignment", title="alignment", kind="captions"),
    MetricName(key="perplexity", title="perplexity", kind="captions", direction="min", digits=2),
    _logged(key="distinct", title="distinct", kind="captions"),
    _logged(key="pointing", title="pointing game", kind="captions"),
    _logged(key="pointing_noun", title="pointing game, nouns", kind="captions"),
    # how spread the attention is says nothing of how good it is
    _logged(key="attention_entropy", title="attention entropy", kind="captions", direction="none"),
    _logged(key="exact", title="exact match", kind="captions"),
    _logged(key="unseen_bleu4", title="BLEU-4, unseen captions", kind="captions"),
    _logged(key="unseen_exact", title="exact match, unseen captions", kind="captions"),
    *(_logged(key=f"as_published/bleu{n}_char", title=f"character BLEU-{n}", kind="captions") for n in range(1, 5)),
    _logged(key="recall3_micro", title="recall@3, pooled", kind="labels"),
    _logged(key="as_published/recall3", title="recall@3, as published", kind="labels"),
    *(_logged(key=f"top{k}_lift", title=f"top {k}, lift over prior", kind="labels") for k in (1, 2, 3)),
    *(_logged(key=f"micro_{name}", title=f"micro {name}", kind="labels") for name in ("precision", "recall")),
    *(_logged(key=f"macro_{name}", title=f"macro {name}", kind="labels") for name in ("precision", "recall")),
    _logged(key="example_precision", title="precision per image", kind="labels"),
    _logged(key="example_recall", title="recall per image", kind="labels"),
    _logged(key="example_f1", title="F1 per image", kind="labels"),
    _logged(key="threshold", title="threshold", kind="labels", direction="none"),
    _logged(key="labels_without_positives", title="labels without positives", direction="none", digits=0),
    _logged(key="reward", title="reward", kind="captions"),
    _logged(key="greedy_reward", title="reward of greedy captions", kind="captions"),
    _logged(key="sample_length", title="tokens of a drawn caption", kind="captions", direction="none", digits=1),
    _logged(key="grad_norm", title="gradient norm", direction="none"),
    _logged(key="loss", title="loss", direction="min"),
    _logged(key="as_published/loss_padded", title="loss with padding", kind="captions", direction="min"),
)
"""All named metrics in the order of the columns of tables."""

_BY_KEY: Mapping[str, MetricName] = {metric.key: metric for metric in METRICS}
_KINDS: tuple[Kind, ...] = ("captions", "labels", "codes")


def metric(key: str) -> MetricName:
    """What is known about a metric, by its key.

    >>> metric("fact_f1").title, metric("loss").direction, metric("my_metric").title
    ('fact F1', 'min', 'my_metric')
    """
    return _BY_KEY.get(key) or MetricName(key=key, title=key, column=False, report=False)


def report_keys(present: Iterable[str]) -> list[str]:
    """Columns of the table printed after a test, as far as they are present."""
    known = set(present)
    return [item.key for item in METRICS if item.report and item.key in known]


def column_keys(present: Iterable[str]) -> list[str]:
    """Columns of a table that compares runs, as far as they are present."""
    known = set(present)
    return [item.key for item in METRICS if item.column and item.key in known]


def paired_keys() -> list[str]:
    """Metrics of labels whose differences are tested, the most important ones first."""
    chosen = [item for item in METRICS if item.paired]
    return [item.key for item in sorted(chosen, key=lambda item: item.rank or len(METRICS))]


def main_keys(present: Iterable[str]) -> list[str]:
    """The important metrics among those present, those of captions first, each kind by its rank.

    >>> main_keys(["bleu1", "bleu4", "cider_d", "loss"])
    ['cider_d', 'bleu4']
    """
    known = set(present)
    ranked = [(_KINDS.index(item.kind), item.rank, item.key) for item in METRICS if item.kind and item.rank]
    return [key for _, _, key in sorted(ranked) if key in known]


def first_key(present: Collection[str]) -> str | None:
    """The metric by which a model is held against its baselines: that of the first kind which it has.

    >>> first_key(["macro_ap", "cider_d"]), first_key(["bleu4"])
    ('cider_d', None)
    """
    return next((item.key for item in METRICS if item.rank == 1 and item.key in present), None)


def deciding_key(present: Iterable[str]) -> str | None:
    """The metric that decides between runs: the most important one present, of equal rank that of captions.

    >>> deciding_key(["bleu4", "macro_ap"]), deciding_key(["loss"])
    ('macro_ap', None)
    """
    return min(main_keys(present), key=lambda key: _BY_KEY[key].rank, default=None)
