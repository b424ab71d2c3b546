"""Where files are kept that can be computed or fetched again."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """Folder of files that can be made again: $CAPTION_CACHE, else ``captioners`` in the user's cache folder."""
    if "CAPTION_CACHE" in os.environ:
        return Path(os.environ["CAPTION_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "captioners"
