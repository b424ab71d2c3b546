"""Synthetic scenes: images, captions, labels and emotions made from a seed; nothing is downloaded or stored."""

from datamodules.scenes.datamodule import SceneCaptions

__all__ = ["SceneCaptions"]
