"""What the dashboards of every method show after an epoch and a test: each curve, picture and table, by its name.

A list and no rule: what a method stops writing, or writes by mistake, is seen here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """What W&B has of a method.

    Attributes:
        curves: over the optimiser's steps; of labels only the beginning of their names.
        images: of validation and test, without the split.
        tables: likewise, with their columns.
        scores: figures of an evaluation.
        baselines: whether there are any.
    """

    curves: frozenset[str]
    images: frozenset[str]
    tables: dict[str, list[str]]
    scores: frozenset[str]
    baselines: bool = True


SPEED = {f"throughput/{name}" for name in ("images_per_s", "captions_per_s", "tokens_per_s", "data_time_share")}
ALWAYS = {"epoch", "train/loss", "train/grad_norm", "trainer/global_step", "lr-AdamW/new", *SPEED}
OWN_CNN = {"lr-AdamW/pretrained"}
CAPTIONS = {"loss", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d"}
CAPTIONS |= {f"fact_{name}" for name in ("f1", "objects", "colours", "sizes", "counts", "relations")}
ATTENTION = {"attention_entropy", "pointing", "pointing_noun"}
LABELS = {
    *("loss", "threshold", "labels_without_positives", "lift_over_prior", "macro_ap", "recall3", "recall3_micro"),
    *(f"{mean}_{name}" for mean in ("micro", "macro", "example") for name in ("precision", "recall", "f1")),
    *(f"top{k}{ending}" for k in (1, 2, 3) for ending in ("", "_lift")),
    "as_published/recall3",
}
LABEL_CURVES = {"label_ap/", "label_f1/"}
CODES = {"loss", "recall_at_1", "recall_at_5", "recall_at_10"}
BEGINNINGS = {"loss", "label_accuracy", "prefix_accuracy"}
TEXTS = {"loss", "bleu4", "exact", "unseen_bleu4", "unseen_exact"}

CAPTION_TABLE = ["image_id", "image", "caption", "CIDEr-D", "references"]
LABEL_TABLES = {
    "labels": ["label", "support", "predicted", "precision", "recall", "f1", "average_precision"],
    "confusions": ["true, missed", "predicted, wrong", "images"],
}


def captioner(*curves: str, attends: bool = False, more: tuple[str, ...] = (), less: tuple[str, ...] = ()) -> Shown:
    scores = (CAPTIONS | (ATTENTION if attends else set()) | set(more)) - set(less)
    images = {"samples", *(["attention_0"] if attends else [])}
    columns = [*CAPTION_TABLE, *(["attention"] if attends else [])]
    return Shown(frozenset({*ALWAYS, *curves}), frozenset(images), {"caption_table": columns}, frozenset(scores))


def classifier(*curves: str, rate: str = "lr-AdamW/new") -> Shown:
    always = ALWAYS - {"lr-AdamW/new"} | {rate}
    images = frozenset({"threshold_curve", "confusion"})
    return Shown(frozenset({*always, *LABEL_CURVES, *curves}), images, LABEL_TABLES, frozenset(LABELS))


BOARDS = {
    "attention_rnn": captioner(*OWN_CNN, attends=True),
    "transformer_captioner": captioner(*OWN_CNN, attends=True),
    "emotional_captions": captioner(  # whose words are not matched with objects
        *OWN_CNN,
        attends=True,
        more=("alignment", "perplexity", "distinct"),
        less=("pointing", "pointing_noun"),
    ),
    "dual_transfer": captioner(),
    "ucm_captioning": captioner(*OWN_CNN, more=("distinct",)),
    "emotion_teacher": classifier(rate="lr-SGD/new"),
    "emotion_student": classifier(),
    "emotion_transfer": classifier(),
    "ucm_multilabel": classifier(*OWN_CNN),
    "ucm_distillation": Shown(
        frozenset({*ALWAYS, *OWN_CNN}),
        frozenset({"codes"}),
        {"retrieval": ["image_id", "image", "rank", "caption", "of this image"]},
        frozenset(CODES),
        baselines=False,
    ),
    "prefix_classifier": Shown(frozenset(ALWAYS), frozenset(), {}, frozenset(BEGINNINGS)),
    "ucm_text_autoencoder": Shown(
        frozenset(ALWAYS),
        frozenset(),
        {"reconstructions": ["image_id", "original", "reconstruction", "exact"]},
        frozenset(TEXTS),
        baselines=False,
    ),
}
DRAWN = {
    "attention_rnn": '{"class_path": "callbacks.attention_maps.AttentionMaps", "init_args": {"count": 1}}',
    "transformer_captioner": '{"class_path": "callbacks.attention_maps.AttentionMaps", "init_args": {"count": 1}}',
    "emotional_captions": '{"class_path": "callbacks.attention_maps.AttentionMaps", "init_args": {"count": 1}}',
    "ucm_distillation": "callbacks.code_projection.CodeProjection",
}
"""Callbacks that twins have and small twins do not."""
