"""Prints upper bounds and baseline of the scenes made with default arguments: ``python -m datamodules.scenes``."""

from core.text import say
from datamodules.scenes.datamodule import SceneCaptions


def main() -> None:
    """Prints one line per row of `SceneCaptions.baselines` on the test split."""
    for name, scores in SceneCaptions().baselines("test").items():
        values = "  ".join(f"{metric} {value:.3f}" for metric, value in scores.items())
        say(f"{name:40s}{values}")


if __name__ == "__main__":
    main()
