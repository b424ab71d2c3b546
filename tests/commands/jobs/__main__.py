"""The proof that takes minutes: a large job, killed again and again at random, gives the bytes of one left alone.

python -m tests.commands.jobs --pictures 20000 --kills 20 --seed 1
"""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image

from tests.commands.jobs.made import make_runs

AT_ONCE, SHARDS = 2, 4
LONGEST = 20.0
"""Seconds after which a process is killed at the latest; half of the time it is still starting."""


def main() -> int:
    """Runs both jobs; the exit code is 1 when bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        make_pictures(folder / "pictures", options.pictures)
        (folder / "runs").mkdir()
        make_runs(folder / "runs")
        equal = [proves(command, folder, options.kills, draw) for command in ("caption", "tag")]
    return 0 if all(equal) else 1


def make_pictures(folder: Path, count: int) -> None:
    """Pictures of noise, 24 x 24, a thousand in a folder."""
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 256, (3, 3, 3), np.uint8))
        coarse.resize((24, 24), Image.Resampling.NEAREST).save(path, compress_level=1)


def proves(command: str, folder: Path, kills: int, draw: random.Random) -> bool:
    """Whether both ways give the same bytes; says how long they took."""
    began = time.monotonic()
    wait(start(command, folder, "alone", "1/1"))
    alone = merged(folder, command, "alone")
    took = time.monotonic() - began
    began, killed, calls = time.monotonic(), 0, 0
    shards, running = deque(range(1, SHARDS + 1)), {}
    while shards or running:
        while shards and len(running) < AT_ONCE:
            shard = shards.popleft()
            process, calls = start(command, folder, "killed", f"{shard}/{SHARDS}"), calls + 1
            running[process] = (shard, time.monotonic() + draw.uniform(0, LONGEST))
        time.sleep(0.02)
        for process, (shard, until) in list(running.items()):
            if process.poll() is not None:
                wait(process)
                del running[process]
            elif killed < kills and time.monotonic() > until:
                process.kill()
                process.wait()
                killed += 1
                shards.append(shard)
                del running[process]
                parts = len(list((folder / f"{command}-killed").glob("part-*.parquet")))
                print(f"{command}: kill {killed} of shard {shard}, {parts} parts are there", flush=True)
    left = [path.name for path in (folder / f"{command}-killed").iterdir() if ".tmp" in path.name]
    equal = merged(folder, command, "killed") == alone and not left and killed == kills
    print(
        f"{command}: {killed} kills in {calls} calls of {SHARDS} shards, {AT_ONCE} at a time, "
        f"{time.monotonic() - began:.0f} s (alone {took:.0f} s): {'the same bytes' if equal else 'other bytes'}",
        flush=True,
    )
    return equal


def start(command: str, folder: Path, name: str, shard: str) -> "subprocess.Popen[bytes]":
    """Starts a job."""
    words = ["--ckpt", folder / "runs" / "captioner.ckpt", folder / "pictures", "--out", folder / f"{command}-{name}"]
    words += ["--shard", shard, "--rows-per-part", "256", "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "cli.py", command, *map(str, words)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, env=environment)


def wait(process: "subprocess.Popen[bytes]") -> None:
    """Waits for the end of a job that nobody kills."""
    if process.wait() != 0:
        raise SystemExit(f"a job ended with {process.returncode}: {process.args!r}")


def merged(folder: Path, command: str, name: str) -> str:
    """Digest of the table of a job."""
    out = folder / f"{command}-{name}.parquet"
    line = [sys.executable, "cli.py", "merge", str(folder / f"{command}-{name}"), "--out", str(out), "--verify"]
    subprocess.run(line, check=True)
    return hashlib.sha256(out.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
