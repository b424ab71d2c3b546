"""What the terminal of a run is spared: remarks of libraries that tell a user of this project nothing."""

import logging
import os
import warnings
from typing import Any


def quieten() -> None:
    """Silences remarks of the libraries that tell a user of this project nothing."""
    for message in (
        ".*does not have many workers.*",
        r".*Glyph \d+ .*missing from font.*",  # the figure has a box in place of the letter
        ".*args parameter is intended to run from within Python.*",
        ".*The number of training batches.*smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*your dataloader is not resumable.*",  # ours begins where the run stopped
        ".*was deprecated in v4.*",  # jsonargparse speaks of Lightning's code
        ".*By default only one JsonargparseDeprecationWarning.*",
        r".*Found \d+ module\(s\) in eval mode at the start of training.*",  # frozen parts stay in it on purpose
        ".*callbacks used to create the checkpoint need to be provided.*",
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # our metrics are summed over the ranks
        ".*_get_pg_default_device.*",  # PyTorch speaks of its own code, here and in the next two
        ".*Multiple backends are registered with this ProcessGroup.*",
        ".*Please use DTensor instead.*",
        ".*could not find the monitored key in the returned metrics.*",  # without validation last.ckpt is enough
    ):
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = _one_line
    if not os.environ.get("CAPTION_DEBUG"):
        logging.raiseExceptions = False  # a log on a full disk is no reason for a traceback
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_is_news)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning without the place in a library where it was thought of."""
    return f"warning: {' '.join(str(message).split())}\n"


_NO_NEWS = (
    "Detected KeyboardInterrupt",
    "GPU available: False",
    "HPU available",
    "Lightning Cloud",
    "Loaded model weights from",
    "Loading `train_dataloader`",
    "Restored all states",
    "Restoring states from",
    "Seed set to",
    "TPU available",
    "`Trainer.fit` stopped",
    "`weights_only` was not set",
    "litlogger",
    "litmodels",
)


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out advertising, and what a run says of itself better."""
    text = record.getMessage()
    return not any(part in text for part in _NO_NEWS)
