"""Beam 1, 5, 64 and 256 on a trained captioner's test pictures: time, BLEU-4, CIDEr-D, fact F1.

Command: python benchmarks/beam_widths.py RUN
"""

import argparse
import time

import torch

from datamodules.scenes import SceneCaptions
from datamodules.scenes.fact_metrics import SceneFacts
from lightning_modules import load_captioner
from metrics.captions import score_captions
from networks.generation.settings import DecodingSettings


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder or checkpoint of a captioner of synthetic scenes")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5, 64, 256])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=50)
    options = parser.parse_args()
    captioner = load_captioner(options.run)
    data = SceneCaptions(num_test=options.images)
    examples = data.examples("test")
    scenes, references = data.scenes("test"), data.references("test")
    print("| beams | ms / image | BLEU-4 | CIDEr-D | fact F1 | mean log-probability |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for beams in options.beams:
        # the widest beams search a whole batch's worth of rows for few images
        size = max(1, options.batch_size * 5 // max(5, beams))
        settings = DecodingSettings(beams=beams, max_tokens=captioner.settings.max_tokens)
        captions: dict[str, str] = {}
        total = 0.0
        start = time.perf_counter()
        for first in range(0, len(examples), size):
            part = examples[first : first + size]
            written = captioner.caption([data.open_image(example) for example in part], settings)
            captions |= {str(example.image_id): rows[0][0] for example, rows in zip(part, written, strict=True)}
            total += sum(rows[0][1] for rows in written)
        seconds = time.perf_counter() - start
        scores = score_captions(captions, references)
        facts = SceneFacts(scenes)
        facts.update(list(captions), list(captions.values()))
        print(
            f"| {beams} | {1000 * seconds / len(examples):.1f} | {scores['bleu4']:.3f} | {scores['cider_d']:.2f} | "
            f"{float(facts.compute()['f1']):.3f} | {total / len(examples):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
