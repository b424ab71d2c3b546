"""Which kinds of facts of synthetic scenes two captioners get right, and whether they differ.

Command: python benchmarks/scene_facts.py --first TEST_FOLDER ... --second TEST_FOLDER ...

Each side is one system, a folder with predictions.json for each of its seeds; image ids are those of the test scenes.
Intervals: 95 %, paired bootstrap over the images, 2,000 draws; seeds of an image stay together.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.scenes import SceneCaptions
from datamodules.scenes.facts import KINDS, check_caption
from datamodules.scenes.generator import Scene

NAMES = ("fact F1", *(f"true {kind}s" for kind in KINDS))


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", nargs="+", required=True, help="folders with the test predictions of a system")
    parser.add_argument("--second", nargs="+", required=True, help="those of another one")
    options = parser.parse_args()
    sides = [[captions_of(Path(folder)) for folder in folders] for folders in (options.first, options.second)]
    images = sorted(set.intersection(*(set(captions) for side in sides for captions in side)))
    texts = SceneCaptions().scenes("test")
    scenes = {name: Scene.from_json(texts[name]) for name in images}
    first, second = (np.sum([counts(captions, scenes) for captions in side], axis=0) for side in sides)
    draws = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), size=2000)
    differences = figures(draws @ second) - figures(draws @ first)
    low, high = np.nanquantile(differences, [0.025, 0.975], axis=0)
    shown = figures(first.sum(0)[None])[0], figures(second.sum(0)[None])[0]
    stated = [side.sum(0)[2::2] / side[:, 0].sum() for side in (first, second)]
    print(f"{len(images)} images, {len(sides[0])} and {len(sides[1])} runs")
    print("| | first | second | difference | stated in a caption, first | second |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for place, name in enumerate(NAMES):
        a, b = shown[0][place], shown[1][place]
        often = "| |" if place == 0 else f"{stated[0][place - 1]:.2f} | {stated[1][place - 1]:.2f} |"
        print(f"| {name} | {a:.3f} | {b:.3f} | {b - a:+.3f} [{low[place]:+.3f}, {high[place]:+.3f}] | {often}")


def captions_of(folder: Path) -> dict[str, str]:
    """Caption of each image."""
    rows = json.loads((folder / "predictions.json").read_text())
    return {str(row["image_id"]): str(row["caption"]) for row in rows}


def counts(captions: dict[str, str], scenes: dict[str, Scene]) -> NDArray[np.float64]:
    """For each image: 1, fact F1, then facts stated and facts that hold of every kind."""
    found: list[Sequence[float]] = []
    for name, scene in scenes.items():
        fact = check_caption(captions[name], scene)
        found.append([1.0, fact.f1, *(float(number) for kind in fact.kinds for number in kind)])
    return np.array(found)


def figures(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean fact F1, and the share of the facts of each kind that hold, of sums `(S, 2 + 2 K)`."""
    with np.errstate(invalid="ignore"):
        shares = sums[:, 3::2] / sums[:, 2::2]
    return np.concatenate([sums[:, 1:2] / sums[:, :1], shares], axis=1)


if __name__ == "__main__":
    main()
