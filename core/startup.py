"""A package of Lightning's that takes seconds to import is read when something of it is used."""

import importlib
import importlib.util
import logging
import sys
from types import ModuleType
from typing import Any

_PLACES = {
    "MeanMetric": "torchmetrics.aggregation",
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
    "__version__": "torchmetrics.__about__",
}
"""What Lightning and this project take from torchmetrics, and the module that defines it."""


class _Package(ModuleType):
    """A package whose ``__init__`` runs when a name is missing; its submodules are imported as ever."""

    def __getattr__(self, name: str) -> Any:
        """Called by Python for names that are not there yet."""
        if (place := _PLACES.get(name)) is not None:
            if name != "__version__":
                importlib.import_module("torchmetrics.utilities")  # first: it and torchmetrics.metric import each other
            return getattr(importlib.import_module(place), name)
        if name.startswith("__") or self.__dict__.get("_whole"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        self.__dict__["_whole"] = True
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(self)
        return getattr(self, name)


def defer_torchmetrics() -> None:
    """Lets ``import torchmetrics`` cost nothing until more of it is used than its two base classes.

    Lightning imports torchmetrics for ``Metric`` alone. Its ``__init__`` imports every metric, and with them
    transformers, torchvision, torch's compiler and scipy wherever they are installed: 3 of the 9 seconds that a command
    took to start. No effect once torchmetrics has been imported.
    """
    if "torchmetrics" in sys.modules:
        return
    spec = importlib.util.find_spec("torchmetrics")
    if spec is None or spec.submodule_search_locations is None:
        return
    package = _Package("torchmetrics")
    package.__spec__ = spec
    package.__loader__ = spec.loader
    package.__file__ = spec.origin
    package.__path__ = list(spec.submodule_search_locations)
    package.__package__ = "torchmetrics"
    package.__dict__["_logger"] = logging.getLogger("torchmetrics")  # its own modules take it from the package
    sys.modules["torchmetrics"] = package
