"""Time of BLEU, ROUGE-L and CIDEr-D beside pycocoevalcap's, on one core.

    python benchmarks/caption_metrics.py [$CAPTION_DATA/coco_eval/captions_val2017.json]

Scores 5,000 captions against five references each; without a file the captions are drawn from a vocabulary with Zipf's
law. Ours and pycocoevalcap (`pip install pycocoevalcap`; left out where it is missing) take turns; medians of wall and
processor time. pycocoevalcap gets tokens, so its Java tokeniser is not counted; ours tokenises every caption.
"""

import argparse
import importlib.util
import itertools
import json
import os
import random
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import Clock, Row, Seconds, add_json_option, write_rows

from metrics import tokenize
from metrics.captions import References, corpus_scores

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32


def read_references(path: Path | None, images: int) -> dict[str, list[str]]:
    """Five references for each of so many images; images that the file does not have get captions of others."""
    draw = random.Random(0)
    found: dict[str, list[str]] = {}
    if path is not None:
        for record in json.loads(path.read_text("utf-8"))["annotations"]:
            found.setdefault(str(record["image_id"]), []).append(record["caption"])
        pool = [caption for captions in found.values() for caption in captions]
    else:
        words = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=3)][::2]
        shares = [1 / (rank + 1) for rank in range(len(words))]
        pool = [" ".join(draw.choices(words, shares, k=draw.randint(7, 14))) + "." for _ in range(10_000)]
    names = [*found, *(f"drawn{number}" for number in range(images))][:images]
    return {name: [*found.get(name, []), *draw.sample(pool, 5)][:5] for name in names}


def captions_of(references: dict[str, list[str]]) -> dict[str, str]:
    """One of each image's references with three words of ten replaced."""
    draw = random.Random(1)
    words = [word for captions in references.values() for caption in captions for word in caption.split()]
    return {
        name: " ".join(draw.choice(words) if draw.random() < 0.3 else word for word in draw.choice(captions).split())
        for name, captions in references.items()
    }


def pycocoevalcap_scores(predictions: dict[str, str], references: dict[str, list[str]]) -> dict[str, float]:
    """BLEU-4, ROUGE-L and CIDEr-D of captions that are tokens already."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    results = {name: [caption] for name, caption in predictions.items()}
    return {
        "bleu4": Bleu(4).compute_score(references, results, verbose=0)[0][3],
        "rouge_l": Rouge().compute_score(references, results)[0],
        "cider_d": Cider().compute_score(references, results)[0],
    }


def memory() -> float:
    """Memory of this process in MB, without pages of files (Linux)."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def in_batches(prepared: References, predictions: dict[str, str]) -> dict[str, float]:
    """What validation does: batches of captions, the references kept."""
    names, captions = list(predictions), list(predictions.values())
    parts = [
        prepared.rows(names[start : start + BATCH], captions[start : start + BATCH])
        for start in range(0, len(names), BATCH)
    ]
    return corpus_scores(np.concatenate(parts))


def score_command(predictions: dict[str, str], references: dict[str, list[str]], folder: Path) -> list[str]:
    """Writes the captions and gives the command that scores them."""
    results = [{"image_id": name, "caption": caption} for name, caption in predictions.items()]
    annotations = [{"image_id": name, "caption": text} for name, texts in references.items() for text in texts]
    (folder / "predictions.json").write_text(json.dumps(results))
    (folder / "references.json").write_text(json.dumps({"annotations": annotations}))
    files = [str(folder / "predictions.json"), str(folder / "references.json")]
    return [sys.executable, str(ROOT / "cli.py"), "score", *files, "--no-java", "--json"]


def measure(path: Path | None, images: int, rounds: int) -> Clock:
    """Takes turns; prints how far the scores of the two are apart, and whether ours keeps memory."""
    references = read_references(path, images)
    predictions = captions_of(references)
    theirs = importlib.util.find_spec("pycocoevalcap") is not None
    if not theirs:
        print("pycocoevalcap is left out: it is not installed (pip install pycocoevalcap)")
    tokens = {name: [tokenize.tokenize_caption(text) for text in texts] for name, texts in references.items()}
    guesses = {name: tokenize.tokenize_caption(text) for name, text in predictions.items()}
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        command = score_command(predictions, references, Path(folder))
        for _ in range(rounds):
            tokenize._tokens_of_chunk.cache_clear()
            prepared = clock.time("references", lambda: References(references))
            clock.time("first score", lambda kept=prepared: kept.score(predictions))
            ours = clock.time("score, references kept", lambda kept=prepared: kept.score(predictions)).corpus()
            clock.time(f"score in batches of {BATCH}", lambda kept=prepared: in_batches(kept, predictions))
            clock.time("`score` from the shell", lambda: subprocess.run(command, check=True, capture_output=True))
            if theirs:
                other = clock.time("pycocoevalcap", lambda: pycocoevalcap_scores(guesses, tokens))
                apart = max(abs(ours[key] - other[key]) for key in other)
                print(f"scores differ by {apart:.1e}", flush=True)
                assert apart < 1e-9, "the scores are not the same"
    before = memory()
    for _ in range(20):
        prepared.score(predictions)
    print(f"memory after 20 more scores with the references kept: {memory() - before:+.1f} MB")
    return clock


COLD = "cold: references and first score"
GOALS = {"score in batches of 32, as in validation": 10}


def rows_of(clock: Clock) -> list[Row]:
    """How many times as fast as pycocoevalcap each of ours is."""
    base = clock.medians()["pycocoevalcap"]
    return [
        Row(
            figure=f"caption metrics, {name}",
            kind="times",
            value=base.over(spent),
            goal=GOALS.get(name),
            unit="5,000 captions",
            ours=spent,
            baseline=base,
        )
        for name, spent in with_cold(clock).items()
        if "shell" not in name and name != "pycocoevalcap"
    ]


def with_cold(clock: Clock) -> dict[str, Seconds]:
    """Medians by name, before them that of a score of references that are new."""
    rows = clock.medians()
    cold = (a + b for a, b in zip(rows["references"], rows["first score"], strict=True))
    return {COLD: Seconds(*cold), **rows}


def main() -> None:
    """Prints the medians as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", nargs="?", type=Path, help="COCO caption JSON; default: drawn captions")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    add_json_option(parser)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core
    clock = measure(options.captions, options.images, options.rounds)
    base = clock.medians().get("pycocoevalcap")
    print(f"\n{options.images} pictures, five references each, median of {options.rounds} rounds\n")
    print("| | wall, s | processor, s | times as fast as pycocoevalcap (processor) |\n| --- | ---: | ---: | ---: |")
    for name, (wall, processor) in with_cold(clock).items():
        faster = "" if base is None or "shell" in name else f"{base.processor / processor:.1f}"
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {faster} |")
    write_rows(options.json, rows_of(clock) if base is not None else [])


if __name__ == "__main__":
    main()
