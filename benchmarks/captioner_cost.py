"""What captioners cost: parameters and milliseconds a picture, as they stand in their runs.

Command: python benchmarks/captioner_cost.py RUN ... --pictures FOLDER

A picture is timed alone, from its file to its caption, all captioners on one before the next; medians.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from commands.images import find_images
from lightning_modules import load_captioner
from lightning_modules.serving import LoadedCaptioner


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders or checkpoints")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of images")
    parser.add_argument("--count", type=int, default=50, help="pictures that are timed, after 3 that are not")
    parser.add_argument("--beams", type=int, help="default: those of the run")
    options = parser.parse_args()
    captioners = [load_captioner(run) for run in options.runs]
    pictures = find_images([str(options.pictures)])[: options.count + 3]
    times: list[list[float]] = [[] for _ in captioners]
    for place, picture in enumerate(pictures):
        for captioner, own in zip(captioners, times, strict=True):
            spent = seconds(captioner, picture, options.beams)
            if place >= 3:
                own.append(spent)
    print(f"{torch.get_num_threads()} threads, {len(pictures) - 3} pictures of {options.pictures.name}")
    print("| run | parameters | of them not in the CNN | beams | ms a picture |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for run, captioner, own in zip(options.runs, captioners, times, strict=True):
        total, decoder = parameters(captioner)
        beams = options.beams or captioner.settings.beams
        middle = 1000 * statistics.median(own)
        print(f"| {run} | {total / 1e6:.2f} M | {decoder / 1e6:.2f} M | {beams} | {middle:.1f} |")


def seconds(captioner: LoadedCaptioner, picture: Path, beams: int | None) -> float:
    """Seconds from a file to its caption."""
    start = time.perf_counter()
    captioner.caption(picture, captioner.decoding(beams=beams))
    return time.perf_counter() - start


def parameters(captioner: LoadedCaptioner) -> tuple[int, int]:
    """Parameters of the captioner with a frozen CNN beside it, and those that are not of a CNN."""
    own = captioner.module.captioner
    whole = size(own) + (0 if captioner.encoder is None else size(captioner.encoder))
    return whole, size(own) - size(own.encoder)


def size(network: nn.Module | None) -> int:
    """Number of parameters."""
    return 0 if network is None else sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
