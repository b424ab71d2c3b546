"""Prints upper bounds and baseline of the scenes made with default arguments: ``python -m datamodules.scenes``."""

import sys

from datamodules.scenes.datamodule import SceneCaptions


def main() -> None:
    """Prints one line per row of `SceneCaptions.baselines` on the test split."""
    for name, scores in SceneCaptions().baselines("test").items():
        values = "  ".join(f"{metric} {value:.3f}" for metric, value in scores.items())
        sys.stdout.write(f"{name:40s}{values}\n")


if __name__ == "__main__":
    main()
