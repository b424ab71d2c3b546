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

from core.shards import Shard
from tests.commands.jobs.made import make_runs

AT_ONCE, SHARDS = 2, 4
ROWS = 256
"""Pictures of a part."""
LONGEST, STARTING = 8.0, 0.3
"""Seconds until a kill, at most, and the share of the kills that come while a process starts."""


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
        equal = [proves(command, folder, options, draw) for command in ("caption", "tag")]
    return 0 if all(equal) else 1


def make_pictures(folder: Path, count: int) -> None:
    """Pictures of noise, 24 x 24, a thousand in a folder."""
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 256, (3, 3, 3), np.uint8))
        coarse.resize((24, 24), Image.Resampling.NEAREST).save(path, compress_level=1)


class Call:
    """A process that does a shard, and when it is killed.

    Args:
        command: caption or tag.
        folder: of everything.
        shard: its number.
        pictures: how many there are.
        draw: chance.
    """

    def __init__(self, command: str, folder: Path, shard: int, pictures: int, draw: random.Random) -> None:
        self.shard, self.delay, self.starting = shard, draw.uniform(0, LONGEST), draw.random() < STARTING
        rows = Shard(shard, SHARDS).rows(pictures, ROWS)
        out = folder / f"{command}-killed"
        self._parts = [out / f"part-{part:06d}.parquet" for part in range(rows.start // ROWS, -(-rows.stop // ROWS))]
        self._before, self._since = self.written(), time.monotonic() if self.starting else None
        self.process = start(command, folder, "killed", f"{shard}/{SHARDS}")

    def written(self) -> int:
        """Parts of the shard that are there."""
        return sum(path.exists() for path in self._parts)

    def is_due(self) -> bool:
        """Whether it is to be killed now: some time after its start, or after the first part that it wrote."""
        if self._since is None and self.written() > self._before:
            self._since = time.monotonic()
        return self._since is not None and time.monotonic() > self._since + self.delay


def proves(command: str, folder: Path, options: argparse.Namespace, draw: random.Random) -> bool:
    """Whether both ways give the same bytes; says how long they took."""
    began = time.monotonic()
    wait(start(command, folder, "alone", "1/1"))
    alone = merged(folder, command, "alone")
    took = time.monotonic() - began
    began, killed, calls = time.monotonic(), 0, 0
    shards: deque[int] = deque(range(1, SHARDS + 1))
    running: list[Call] = []
    while shards or running:
        while shards and len(running) < AT_ONCE:
            running.append(Call(command, folder, shards.popleft(), options.pictures, draw))
            calls += 1
        time.sleep(0.02)
        for call in list(running):
            if call.process.poll() is not None:
                wait(call.process)
                running.remove(call)
            elif killed < options.kills and call.is_due():
                call.process.kill()
                call.process.wait()
                killed += 1
                shards.append(call.shard)
                running.remove(call)
                when = "after its start" if call.starting else "after the first part that it wrote"
                text = f"{call.delay:.1f} s {when}, {call.written()} of its parts are there"
                print(f"{command}: kill {killed}, shard {call.shard} {text}", flush=True)
    left = [path.name for path in (folder / f"{command}-killed").iterdir() if ".tmp" in path.name]
    equal = merged(folder, command, "killed") == alone and not left and killed == options.kills
    print(
        f"{command}: {options.pictures:,} pictures, {killed} kills in {calls} calls of {SHARDS} shards, {AT_ONCE} at a "
        f"time, {time.monotonic() - began:.0f} s (alone {took:.0f} s): {'the same bytes' if equal else 'other bytes'}",
        flush=True,
    )
    return equal


def start(command: str, folder: Path, name: str, shard: str) -> "subprocess.Popen[bytes]":
    """Starts a job."""
    words = ["--ckpt", folder / "runs" / "captioner.ckpt", folder / "pictures", "--out", folder / f"{command}-{name}"]
    words += ["--shard", shard, "--rows-per-part", str(ROWS), "--workers", "1"]
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
