"""How an export as graphs compares with its checkpoint: captions that are equal, time of a picture, size on disk.

``python benchmarks/exported_captioner.py RUN --format onnx [--int8] --pictures FOLDER [--dataset FILE] [--count 200]``

Times are those of one thread, the picture's file included; the two take turns, so that other work on the machine hits
both alike. Processor time stands beside wall time.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from commands.exporting.portable import write_portable
from commands.exporting.standalone import Captioner
from core.checkpoints import find_checkpoint
from lightning_modules import load_captioner


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--dataset", type=Path, help="dataset.json of UCM: only the pictures of its test split")
    parser.add_argument("--count", type=int, help="at most so many")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--beams", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = _pictures(options.pictures, options.dataset)[: options.count]
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "out"
        file = find_checkpoint(options.run)
        write_portable(file, None, out, name="m", licence="other", engine=options.format, int8=options.int8)
        size = sum(path.stat().st_size for path in out.iterdir())
        alone, loaded = Captioner(out, threads=1), load_captioner(file)
        print(json.dumps({"MB": round(size / 1e6, 2), **_compared(alone, loaded, paths, options.beams)}))


def _compared(alone: Captioner, loaded: object, paths: list[Path], beams: int | None) -> dict[str, float]:
    settings = loaded.decoding(beams=beams)  # type: ignore[attr-defined]
    writers = {
        "export": lambda path: alone.caption(path, beams=beams)[0],
        "checkpoint": lambda path: loaded.caption(path, settings)[0][0][0],  # type: ignore[attr-defined]
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    equal = 0
    for path in paths:
        texts = []
        for name, write in writers.items():
            wall, processor = time.perf_counter(), time.process_time()
            texts.append(write(path))
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
        equal += texts[0] == texts[1]
    found: dict[str, float] = {"pictures": len(paths), "equal_percent": round(100 * equal / len(paths), 2)}
    for name, pairs in times.items():
        for kind, values in zip(("wall", "processor"), zip(*pairs, strict=True), strict=True):
            found[f"{name}_{kind}_ms"] = round(1000 * statistics.median(values), 2)
    return found


def _pictures(folder: Path, dataset: Path | None) -> list[Path]:
    if dataset is None:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    rows = json.loads(dataset.read_text())["images"]
    stems = {Path(row["filename"]).stem for row in rows if row["split"] == "test"}
    return sorted(path for path in folder.iterdir() if path.stem in stems)


if __name__ == "__main__":
    main()
