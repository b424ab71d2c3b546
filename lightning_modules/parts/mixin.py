"""What the mixins of this folder stand on.

A mixin has options and hooks of one concern and is mixed into a module: ``class Method(SamplingOptions,
CaptioningModule)``. It is no module itself, so that a method has two levels of bases above it, not a tower: when the
program runs, its base is `object`. It calls ``super()`` in every hook, and the module's class stands last among the
bases. A type checker is told that it is the module, whose attributes and hooks it uses.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_modules.base import BaseModule as Mixin
else:
    Mixin = object

__all__ = ["Mixin"]
