"""Transfer from network A (trained on pseudo-labels) or B to the target task: AnB, AnB+, BnB, BnB+.

After "How transferable are features in deep neural networks?" (Yosinski et al. 2014).
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from tokenizers import Tokenizer
from torch import nn

from core.errors import UserError
from core.text import say
from datamodules.loading.tokenization import WordTokenizer, tokenizer_from_spec
from lightning_modules.classification import ClassificationModule
from lightning_modules.loading import load_module
from lightning_modules.parts.emotion import EmotionOptions
from networks.emotion.base import EmotionNetwork
from networks.emotion.transfer import check_depth, freeze, transfer


class EmotionTransfer(EmotionOptions, ClassificationModule):
    """A network for emotions whose first n blocks come from another run.

    ======  =====================  =====================
    name    `init_from`            `freeze_transferred`
    ======  =====================  =====================
    AnB     a run on A             true
    AnB+    a run on A             false
    BnB     a run on B             true
    BnB+    a run on B             false
    B       none, `cut_depth: 0`   false
    ======  =====================  =====================

    The paper's variant takes all but the last layer: `cut_depth` None. What the blocks are says the class of each
    network; what was copied and what could not be is printed and kept in the checkpoint. Copied blocks learn at
    `lr_pretrained`.

    Args:
        cut_depth: n, the number of blocks copied, from the input; None: all.
        freeze_transferred: the first n blocks do not learn: not their weights, not the statistics of their norms,
            and without dropout.
        transfer_head: copy the last layer too, where the labels have the same names (published).

    Raises:
        UserError: `cut_depth` is more than there are blocks, or values do not match.
    """

    method: ClassVar[str] = "emotion_transfer"

    def __init__(
        self,
        *,
        cut_depth: int | None = None,
        freeze_transferred: bool = False,
        transfer_head: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cut_depth, self.transfer_head = cut_depth, transfer_head
        self.depth = check_depth(self.classifier, cut_depth)
        self.frozen = freeze(self.classifier, self.depth) if freeze_transferred else ()
        self._head_is_new = True

    @property
    def head_is_new(self) -> bool:
        """Whether the last layer was not copied."""
        return self._head_is_new

    def setup(self, stage: str) -> None:
        """Copies the first blocks in a new run.

        Raises:
            UserError: there is a cut depth, but nothing to copy blocks from.
        """
        if stage == "fit" and self.is_new_run and self.depth and not self.init_from:
            raise UserError(
                f"cut_depth is {self.cut_depth}, but there is no run to copy blocks from: set "
                "model.init_args.init_from, or cut_depth to 0 to train B alone"
            )
        super().setup(stage)

    def load_stage(self, path: str) -> None:
        """Copies the first blocks of another run, and says which.

        Raises:
            UserError: no such run, not one of a network for emotions, or one on regions of another width, whose
                projection would be frozen at random.
        """
        source = load_module(path)
        if not isinstance(source, ClassificationModule) or not isinstance(source.classifier, EmotionNetwork):
            raise UserError(f"init_from '{path}' is of method '{source.method}': expected a network for emotions")
        old, new = source.inference, self.inference
        words = vocabulary(old["tokenizer"]), vocabulary(new["tokenizer"])
        labels = old.get("label_names") or [], new.get("label_names") or []
        head = self.transfer_head
        report = transfer(source.classifier, self.classifier, self.depth, head=head, words=words, labels=labels)
        if self.frozen and not self.new_projection and any("'visual_projection.weight' is (" in x for x in report.left):
            raise UserError(
                f"init_from '{path}' read image regions of another width, so that their projection would be frozen at "
                "random: use its data.init_args.encoder, set freeze_transferred to false, or "
                "model.init_args.new_projection to true for a new projection, which is then trained"
            )
        if self.frozen and report.left:
            report.left.append("what is listed above is frozen all the same, with the weights it had")
        self._head_is_new = report.head == "new"
        self.inference["transfer"] = report.lines()
        if self.trainer.is_global_zero:
            say(*report.lines())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keeps what the checkpoint says of the transfer."""
        super().on_load_checkpoint(checkpoint)
        if lines := checkpoint.get("inference", {}).get("transfer"):
            self.inference["transfer"] = lines

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Also parameters of the blocks that were copied."""
        yield from super().pretrained_parameters()
        for _, parts in self.classifier.blocks()[: self.depth]:
            for part in parts:
                yield from part.parameters() if isinstance(part, nn.Module) else [part]


def vocabulary(tokenizer: dict[str, Any]) -> list[str]:
    """The token of every id of a tokenizer that is described in a checkpoint."""
    built = tokenizer_from_spec(tokenizer)
    if isinstance(built, WordTokenizer):
        return list(built.words)
    ids = Tokenizer.from_str(tokenizer["tokenizer"]).get_vocab()
    return sorted(ids, key=lambda token: ids[token])
