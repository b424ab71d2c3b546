"""Packages that take seconds to import, and of which most commands use a name or two, are read when they are used."""

import functools
import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()
"""Held while a package is read; other threads wait, as they do for any import."""


class _Late(ModuleType):
    """A module whose code runs when a name is missing that is not among the given ones.

    Args:
        spec: of the module.
        given: how to get the names that are wanted of it as a rule, without its code.
    """

    def __init__(self, spec: ModuleSpec, given: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__package__ = spec.name if spec.submodule_search_locations else spec.parent
        if spec.submodule_search_locations:
            self.__path__ = list(spec.submodule_search_locations)
        self.__dict__.update({"_given": given, "_begun": False})

    def __getattr__(self, name: str) -> Any:
        """Called by Python for names that are not there yet."""
        state = self.__dict__
        if not state["_begun"] and name in state["_given"]:
            return state["_given"][name]()
        if not (name.startswith("__") and name.endswith("__")):
            _complete(self)
        if name not in state:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        return state[name]


def _complete(module: _Late) -> None:
    """Runs the code of a module, once; whoever asks meanwhile in the same thread finds it half done, as ever."""
    with _LOCK:
        spec = module.__spec__
        if module.__dict__["_begun"] or spec is None or spec.loader is None:
            return
        module.__dict__["_begun"] = True
        try:
            spec.loader.exec_module(module)
        except BaseException:
            module.__dict__["_begun"] = False
            raise


class _WholeFirst:
    """Finds no module, but completes a package before its submodules are looked for."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Called by Python for every module that is not imported yet."""
        if name.startswith(f"{_COMPILER}.") and isinstance(module := sys.modules.get(_COMPILER), _Late):
            _complete(module)


def defer() -> None:
    """Lets the packages below cost nothing until more of them is used than Lightning's imports take.

    Of the 7 seconds of processor time that ``fit --help`` took, torch's compiler was 3 and matplotlib 1. No effect on
    what has been imported.
    """
    defer_torchmetrics()
    defer_compiler()
    defer_plots()


# torchmetrics

_PLACES = {
    "MeanMetric": "torchmetrics.aggregation",
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
    "__version__": "torchmetrics.__about__",
}
"""What Lightning and this project take from torchmetrics, and the module that defines it."""


def defer_torchmetrics() -> None:
    """Lightning imports torchmetrics for ``Metric`` alone.

    Its ``__init__`` imports every metric, and with them transformers, torchvision, torch's compiler and scipy wherever
    they are installed.
    """
    given = {name: functools.partial(_from_torchmetrics, name) for name in _PLACES}
    package = _deferred("torchmetrics", given)
    if package is not None:
        package.__dict__["_logger"] = logging.getLogger("torchmetrics")  # its own modules take it from the package


def _from_torchmetrics(name: str) -> Any:
    if name != "__version__":
        importlib.import_module("torchmetrics.utilities")  # first: it and torchmetrics.metric import each other
    return getattr(importlib.import_module(_PLACES[name]), name)


def defer_plots() -> None:
    """Keeps matplotlib, which torchmetrics imports for two types and a function that draws, from being read."""
    draw = functools.partial(_late_function, "torchmetrics.utilities.plot", "plot_single_or_multi_val")
    types = dict.fromkeys(("_AX_TYPE", "_PLOT_OUT_TYPE"), lambda: object)
    _deferred("torchmetrics.utilities.plot", {**types, "plot_single_or_multi_val": lambda: draw})


def _late_function(module: str, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a function of a module that is deferred."""
    late = sys.modules[module]
    if isinstance(late, _Late):
        _complete(late)
    return getattr(late, name)(*args, **kwargs)


# torch's compiler

_COMPILER = "torch._dynamo"


class _CompiledType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        """Whether something is a compiled module: nothing is one before the compiler has been imported."""
        module = sys.modules.get(f"{_COMPILER}.eval_frame")
        return module is not None and isinstance(instance, module.OptimizedModule)


class _Compiled(metaclass=_CompiledType):
    """Stands for ``torch._dynamo.OptimizedModule``, which Lightning's modules ask instances for."""


def defer_compiler() -> None:
    """Lightning imports torch's compiler to recognise compiled modules, torch's optimisers to keep out of it."""
    given = {"OptimizedModule": _Compiled, "disable": _disable, "graph_break": _nothing}
    if _deferred(_COMPILER, {name: functools.partial(_same, value) for name, value in given.items()}) is not None:
        sys.meta_path.insert(0, _WholeFirst)


def _same(value: Any) -> Any:
    return value


def _nothing(*_args: Any, **_options: Any) -> None:
    """``torch._dynamo.graph_break``, outside of what is compiled."""


def _disable(fn: Any = None, recursive: bool = True, **kwargs: Any) -> Any:
    """``torch._dynamo.disable``, which has no effect as long as nothing is compiled."""
    if not callable(fn) or isinstance(fn, type):  # as a decorator with options, and of classes
        return _late_function(_COMPILER, "disable", fn, recursive, **kwargs)
    found: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def call(*args: Any, **options: Any) -> Any:
        if not found and sys.modules[_COMPILER].__dict__.get("_begun", True):
            found.append(sys.modules[_COMPILER].disable(fn, recursive, **kwargs))
        return (found[0] if found else fn)(*args, **options)

    return call


def _deferred(name: str, given: Mapping[str, Callable[[], Any]]) -> _Late | None:
    """Puts a deferred module into its place; None where it has been imported, or is not installed.

    Args:
        name: of the module.
        given: see `_Late`.
    """
    if name in sys.modules:
        return None
    top, *below = name.split(".")
    found = importlib.util.find_spec(top)  # of the whole name, it would import what is above
    if found is None or found.submodule_search_locations is None:
        return None
    place = Path(next(iter(found.submodule_search_locations)), *below)
    file, folder = (place / "__init__.py", [str(place)]) if place.is_dir() else (place.with_suffix(".py"), None)
    if not file.is_file():
        return None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folder)
    assert spec is not None
    module = sys.modules[name] = _Late(spec, given)
    return module
