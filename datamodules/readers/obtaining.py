"""How the files of a data set come into its folder: what ``data prepare`` asks a data module."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.readers.download import Archive


class Obtainable:
    """Base of data modules; the answers here are those of a data set that the user brings along."""

    @classmethod
    def downloads(cls) -> "tuple[str, Mapping[str, Archive]]":
        """Address of a server, and part to archive there; an empty mapping: nothing can be downloaded."""
        return "", {}

    @classmethod
    def parts_in(cls, root: Path) -> dict[str, tuple[str, str]]:
        """Parts of a data set whose publishers ask for a form, or have no permanent address.

        Args:
            root: folder of the data set.

        Returns:
            Part to what was found of it, empty if nothing, and where it comes from.
        """
        del root
        return {}
