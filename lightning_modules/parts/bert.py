"""Options of BERT and VisualBERT bodies."""

from typing import Any

from lightning_modules.parts.mixin import Mixin


class BertOptions(Mixin):
    """A module with a BERT or VisualBERT body.

    Args:
        weights: BERT or VisualBERT weights to start from, a hub id or local folder; None = random.
        layers: encoder layers, if not the usual ones or those of the weights.
        heads: attention heads, if not the usual ones or those of the weights.
        bert_dim: hidden width, if not the usual one or that of the weights.
        bert_sizes: sizes as saved in a checkpoint.
        new_projection: VisualBERT: the projection of image regions starts at random and learns, also with `head_only`
            or `freeze_transferred`; for regions of another width than that of `weights`, which are refused without it.
    """

    def __init__(
        self,
        *,
        weights: str | None = None,
        layers: int | None = None,
        heads: int | None = None,
        bert_dim: int | None = None,
        bert_sizes: dict[str, Any] | None = None,
        new_projection: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.weights, self.layers, self.heads, self.bert_dim = weights, layers, heads, bert_dim
        self.bert_sizes, self.new_projection = bert_sizes, new_projection
