"""Packages that take seconds to import, and of which most commands use a name or two, are read when they are used."""

import functools
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
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
        self.__dict__.update({"_given": given, "_begun": False, "_then": []})

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


class _LateLoader(Loader):
    """Makes a module and leaves it empty."""

    def __init__(self, real: Loader, given: Mapping[str, Callable[[], Any]]) -> None:
        self.real, self.given = real, given

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Called by Python first."""
        return _Late(spec, self.given)

    def exec_module(self, module: ModuleType) -> None:
        """Called by Python next: the code waits."""


class _Finder(MetaPathFinder):
    """Finds what is deferred, and completes a package before submodules are looked for that count on all of it."""

    def __init__(self) -> None:
        self.deferred: dict[str, Mapping[str, Callable[[], Any]]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by Python for every module that is not imported yet."""
        given = self.deferred.get(fullname)
        if given is None:
            _complete_package(fullname)
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LateLoader(spec.loader, given)
        return spec


_FINDER = _Finder()
_WHOLE = ("torch._dynamo", "scipy.optimize")
"""Deferred packages whose other submodules count on all of it."""


def _complete_package(name: str) -> None:
    """Completes the package that a submodule counts on."""
    for package in _WHOLE:
        if name.startswith(f"{package}.") and isinstance(module := sys.modules.get(package), _Late):
            _complete(module)


def _complete(module: _Late) -> None:
    """Runs the code of a module, once; whoever asks meanwhile in the same thread finds it half done, as ever."""
    with _LOCK:
        _complete_package(module.__name__)
        spec = module.__spec__
        if module.__dict__["_begun"] or spec is None or not isinstance(spec.loader, _LateLoader):
            return
        module.__dict__["_begun"] = True
        try:
            spec.loader.real.exec_module(module)
        except BaseException:
            module.__dict__["_begun"] = False
            raise
        for work in module.__dict__["_then"]:
            work()


def defer() -> None:
    """Lets the packages below cost nothing until more of them is used than Lightning's imports take.

    Of the 7 seconds of processor time that ``fit --help`` took, torch's compiler was 3 and matplotlib 1. No effect on
    what has been imported.
    """
    defer_torchmetrics()
    defer_compiler()
    defer_plots()
    defer_functions()
    defer_symbols()
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


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
    # its own modules take the logger from the package
    _FINDER.deferred["torchmetrics"] = {**given, "_logger": lambda: logging.getLogger("torchmetrics")}


def _from_torchmetrics(name: str) -> Any:
    if name != "__version__":
        importlib.import_module("torchmetrics.utilities")  # first: it and torchmetrics.metric import each other
    return getattr(importlib.import_module(_PLACES[name]), name)


def defer_plots() -> None:
    """Keeps matplotlib, which torchmetrics imports for two types and a function that draws, from being read."""
    draw = functools.partial(_late_function, "torchmetrics.utilities.plot", "plot_single_or_multi_val")
    types = dict.fromkeys(("_AX_TYPE", "_PLOT_OUT_TYPE"), lambda: object)
    _FINDER.deferred["torchmetrics.utilities.plot"] = {**types, "plot_single_or_multi_val": lambda: draw}


def _late_function(module: str, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a function of a module that is deferred."""
    late = sys.modules[module]
    if isinstance(late, _Late):
        _complete(late)
    return getattr(late, name)(*args, **kwargs)


_CALLED_LATE = {
    # Lightning's summary of a model; imports triton
    "torch.utils.flop_counter": "FlopCounterMode",
    # transformers' loss of detectors, and masks that are built under vmap; import most of scipy, and torch's compiler
    "scipy.optimize": "linear_sum_assignment",
    "torch._dynamo._trace_wrapped_higher_order_op": "TransformGetItemToIndex",
    # torchvision's alignment of regions
    "torch._dynamo.utils": "is_compile_supported",
}
"""Modules of which Lightning, transformers or torchvision import one function, or class to call, that few runs need."""


def defer_functions() -> None:
    """Keeps these modules from being read before the function is called."""
    for module, name in _CALLED_LATE.items():
        call = functools.partial(_late_function, module, name)
        _FINDER.deferred[module] = {name: functools.partial(_same, call)}


_SYMBOLS = "torch.fx.experimental.symbolic_shapes"
_OF_CONDITIONS: Mapping[str, Callable[[Iterable[bool]], bool]] = {
    "expect_true": all,
    "guard_or_false": all,
    "guard_or_true": all,
    "sym_and": all,
    "sym_or": any,
}
"""Functions for conditions with symbols, and what they are without."""


def defer_symbols() -> None:
    """Shapes on the meta device are checked by functions for symbols, which import sympy and are given plain bools."""
    decide = {name: functools.partial(_decide, name) for name in _OF_CONDITIONS}
    _FINDER.deferred[_SYMBOLS] = {name: functools.partial(_same, call) for name, call in decide.items()}


def _decide(name: str, /, *conditions: Any, **kwargs: Any) -> Any:
    if conditions and all(type(condition) is bool for condition in conditions):
        return _OF_CONDITIONS[name](conditions)
    return _late_function(_SYMBOLS, name, *conditions, **kwargs)


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
    """Lightning imports torch's compiler to recognise compiled modules, torch's optimisers to keep out of it.

    And transformers to mark functions for it.
    """
    given = {"OptimizedModule": _Compiled, "disable": _disable, "graph_break": _nothing}
    given |= {"allow_in_graph": _allow_in_graph, "assume_constant_result": _constant}
    _FINDER.deferred[_COMPILER] = {name: functools.partial(_same, value) for name, value in given.items()}


def _same(value: Any) -> Any:
    return value


def _nothing(*_args: Any, **_options: Any) -> None:
    """``torch._dynamo.graph_break``, outside of what is compiled."""


def _disable(fn: Any = None, recursive: bool = True, **kwargs: Any) -> Any:
    """``torch._dynamo.disable``, which has no effect as long as nothing is compiled."""
    if fn is None:  # as a decorator with options
        return functools.partial(_disable, recursive=recursive, **kwargs)
    if not callable(fn) or isinstance(fn, type):
        return _late_function(_COMPILER, "disable", fn, recursive, **kwargs)
    found: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def call(*args: Any, **options: Any) -> Any:
        if not found and sys.modules[_COMPILER].__dict__.get("_begun", True):
            found.append(sys.modules[_COMPILER].disable(fn, recursive, **kwargs))
        return (found[0] if found else fn)(*args, **options)

    return call


def _allow_in_graph(fn: Any) -> Any:
    """``torch._dynamo.allow_in_graph``, noted until there is a compiler to tell."""
    compiler = sys.modules[_COMPILER]
    if isinstance(compiler, _Late) and not compiler.__dict__["_begun"]:
        compiler.__dict__["_then"].append(lambda: compiler.allow_in_graph(fn))
        return fn
    return compiler.allow_in_graph(fn)


def _constant(fn: Any) -> Any:
    """``torch._dynamo.assume_constant_result``, which marks a function and asks for nothing else."""
    fn._dynamo_marked_constant = True
    return fn
