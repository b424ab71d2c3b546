"""All benchmarks of training in one run: a Markdown table with goals and floors, a plot, and the figures as JSON.

    python benchmarks/training.py [--folder runs/bench] [--only dual_transfer_step fit_overhead]
    python benchmarks/training.py --draw runs/bench/results.json --plot docs/training_speed.png

The first (`make bench`, under 30 minutes on two quiet cores) runs each benchmark in a process of its own. Each lets its
baseline and ours take turns and checks that both have the same loss; one that fails ends the run with an error. The
floor of a step is the time that its operations or its bytes take at the speed that this machine reaches in products
of large matrices and in copies of memory, measured at the start, whichever is longer. The second draws the figures of
an earlier run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measuring import Clock, Row, available_threads, has_bfloat16, peaks

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("", "goal", "found", "", "baseline, ms", "ours, ms", "GFLOP", "GB", "floor, ms", "times the floor")


def parts() -> dict[str, list[str]]:
    """Options of the benchmarks by name."""
    captions = Path(os.environ.get("CAPTION_DATA", "../shared/data")) / "coco_eval" / "captions_val2017.json"
    return {
        "dual_transfer_step": ["--repeats", "2"],
        "attention_rnn_step": ["--rounds", "3"],
        "text_autoencoder_step": [
            *("--width", "128", "256", "1024", "--padded", "24", "--scheduled_sampling", "0", "--rounds", "5")
        ],
        "fit_overhead": [],
        "data_time": [],
        "caption_metrics": [*([str(captions.resolve())] if captions.is_file() else []), "--rounds", "3"],
        "beam_search": ["--repeats", "1", "--images", "8", "--slow_images", "1"],
    }


def run_part(name: str, words: Sequence[str]) -> list[Row]:
    """Runs a benchmark and returns its figures."""
    # threads wait as they do in cli.py, for the baselines, too
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GOMP_SPINCOUNT": "3000", "HF_HUB_OFFLINE": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        line = [sys.executable, f"benchmarks/{name}.py", *words, "--json", str(path)]
        print(" ".join(line[1:-2]), file=sys.stderr, flush=True)
        if subprocess.run(line, cwd=ROOT, env=environment, stdout=sys.stderr, check=False).returncode:
            raise SystemExit(f"error: benchmarks/{name}.py failed, see above")
        return [Row.read(values) for values in json.loads(path.read_text(encoding="utf-8"))]


def measure(names: Sequence[str], path: Path) -> dict[str, Any]:
    """Runs benchmarks and returns everything that is to be kept of them; a file has it after each of them."""
    threads = sorted({1, available_threads()})
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": text_of("git", "rev-parse", "--short", "HEAD"),
        "processor": processor_name(),
        "has_bfloat16": has_bfloat16(),
        "load": [os.getloadavg()[0]],
        "peaks": {str(count): peaks(count) for count in threads},
        "seconds": {},
        "rows": [],
    }
    for name in names:
        clock = Clock()
        found["rows"] += [asdict(row) for row in clock.time(name, lambda name=name: run_part(name, parts()[name]))]
        found["seconds"][name] = clock.seconds[name][0]
        found["load"].append(os.getloadavg()[0])
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def text_of(*command: str) -> str:
    """What a command prints; empty without it."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def processor_name() -> str:
    """The processor as Linux names it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def floor(row: Row, speeds: Mapping[str, Mapping[str, float]]) -> float | None:
    """Processor seconds that a figure's operations or bytes take at the least."""
    if row.flops is None or row.bytes is None:
        return None
    speed = speeds[str(row.threads)]
    return max(row.flops / speed[f"processor/{row.dtype}"], row.bytes / speed["processor/bytes"])


def verdict(row: Row) -> str:
    """Whether a goal is met by processor time, or by how much it is missed."""
    if row.goal is None:
        return ""
    found = row.value.processor
    if row.kind == "times":
        return "met" if found >= row.goal else f"missed by {row.goal - found:.1f}"
    return "met" if found <= row.goal else f"missed by {found - row.goal:.1%}".replace("%", " %")


def cells(row: Row, speeds: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The row of the table; processor time, and in brackets that of the clock."""

    def shown(value: float) -> str:
        return f"{value:.1f}" if row.kind == "times" else f"{value:.1%}".replace("%", " %")

    def milliseconds(pair: Any) -> str:
        digits = 1 if pair.processor < 0.1 else 0
        return f"{1e3 * pair.processor:.{digits}f} ({1e3 * pair.wall:.{digits}f})"

    least = floor(row, speeds)
    goal = "" if row.goal is None else f"{'>=' if row.kind == 'times' else '<='} {shown(row.goal)}"
    bounds = ["", "", "", ""]
    if least is not None and row.ours is not None:
        bounds = [f"{row.flops / 1e9:.2f}", f"{row.bytes / 1e9:.2f}", f"{1e3 * least:.1f}"]
        bounds.append(f"{row.ours.processor / least:.1f}")
    spent = ["" if pair is None else milliseconds(pair) for pair in (row.baseline, row.ours)]
    found = f"{shown(row.value.processor)} ({shown(row.value.wall)})"
    return [row.figure, goal, found, verdict(row), *spent, *bounds]


def table(found: Mapping[str, Any]) -> str:
    """Everything as Markdown."""
    rows = [Row.read(values) for values in found["rows"]]
    lines = [list(COLUMNS), ["---", *["---:"] * (len(COLUMNS) - 1)], *(cells(row, found["peaks"]) for row in rows)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    speeds = []
    for threads, speed in found["peaks"].items():
        giga = {name: value / 1e9 for name, value in speed.items()}
        kinds = {"float32": "GFLOP in float32", "bfloat16": "GFLOP in bfloat16", "bytes": "GB copied"}
        said = [
            f"{giga[f'processor/{kind}']:.1f} {what} ({giga[kind]:.1f})" for kind, what in kinds.items() if kind in giga
        ]
        speeds.append(f"{threads} threads, a second of processor time (of the clock): {', '.join(said)}")
    if not found["has_bfloat16"]:
        speeds.append("bfloat16 is left out: the processor has no instructions for it")
    load = f"load {min(found['load']):.1f} to {max(found['load']):.1f}"
    about = f"{found['date']}, commit {found['commit']}, {found['processor']}, {load}"
    processor, wall = (sum(taken[place] for taken in found["seconds"].values()) / 60 for place in (1, 0))
    spent = f"{processor:.0f} ({wall:.0f}) minutes"
    return f"{text}\n\nProcessor time, in brackets that of the clock. {about}, {spent}.\n" + "\n".join(speeds)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draws how many times as fast as their baselines figures are, with goals and floors, and shares."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in map(Row.read, found["rows"]) if row.goal is not None]
    shares = [row for row in rows if row.baseline is None or row.kind == "more"]
    times = [row for row in rows if row not in shares]
    figure, (upper, lower) = pyplot.subplots(
        2, 1, figsize=(8, 1.8 + 0.34 * len(rows)), height_ratios=[len(times) + 1, len(shares) + 1], layout="constrained"
    )
    for place, row in enumerate(times):
        value = row.value.processor if row.kind == "times" else 1 / row.value.processor
        goal = row.goal if row.kind == "times" else 1 / row.goal
        assert row.baseline is not None
        least = floor(row, found["peaks"])
        mark(upper, place, value, goal, None if least is None else row.baseline.processor / least)
    for place, row in enumerate(shares):
        mark(lower, place, max(0.0, 100 * row.value.processor), 100 * row.goal, None, most=True)
    for axes, shown, label in ((upper, times, "times as fast as the baseline"), (lower, shares, "per cent of a step")):
        axes.set_yticks(range(len(shown)), [row.figure.replace("`", "") for row in shown])
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    upper.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 50, 100]
    upper.set_xticks(ticks, map(str, ticks))
    upper.minorticks_off()
    handles = dict(zip(*reversed(upper.get_legend_handles_labels()), strict=True))
    upper.legend(handles.values(), handles.keys(), loc="lower right", frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def mark(axes: Any, place: int, value: float, goal: float, bound: float | None, *, most: bool = False) -> None:
    """Draws one line: found, goal, and what the floor would allow."""
    met = value <= goal if most else value >= goal
    if bound is not None:
        axes.plot([value, bound], [place, place], color="#c8c8c8", linewidth=1.2, zorder=1)
        axes.scatter(bound, place, marker="|", s=110, color="#8a8a8a", label="at the floor", zorder=2)
    axes.scatter(goal, place, marker="d", s=34, facecolor="white", edgecolor="#222222", label="goal", zorder=3)
    label, colour = ("goal met", "#1b7837") if met else ("goal missed", "#c2410c")
    axes.scatter(value, place, s=44, color=colour, label=label, zorder=4)


def main() -> None:
    """Runs the benchmarks, or draws what an earlier run found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="of results.json, table.md, speed.png")
    parser.add_argument("--only", nargs="+", choices=list(parts()), default=list(parts()), help="benchmarks to run")
    parser.add_argument("--draw", type=Path, help="results.json of an earlier run, instead of a new one")
    parser.add_argument("--plot", type=Path, help="where the plot goes; by default into the folder")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.draw is not None:
        found = json.loads(options.draw.read_text(encoding="utf-8"))
    else:
        found = measure(options.only, options.folder / "results.json")
    (options.folder / "table.md").write_text(table(found) + "\n", encoding="utf-8")
    print(table(found))
    draw(found, options.plot or options.folder / "speed.png")


if __name__ == "__main__":
    main()
