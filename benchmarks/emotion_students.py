"""Cost of a training epoch of each student of the emotion transfer, at full size, random weights.

    python benchmarks/emotion_students.py [--batch 16] [--steps 3] [--device cpu] [--precision 32|bf16]

A step is forward pass, loss, backward pass and AdamW on captions of 32 tokens, one for each picture of 224 pixels (or
36 stored regions of 2048 numbers); data loading is left out. An epoch is 11,829 pictures, a tenth of COCO 2017 train as
published. The published figures, with a detector in the loader and all of COCO: 11 h for student (a), 25 h for (c).
"""

import argparse
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F

from core.batch import Batch
from networks.emotion.build import build_emotion_network

IMAGES = 11_829
LABELS, VOCABULARY, TOKENS = 29, 30_522, 32
STUDENTS: dict[str, dict[str, Any]] = {
    "(a) VisualBERT, stored regions": {"architecture": "visual_bert", "feature_dim": 2048},
    "(a) the same, head only": {"architecture": "visual_bert", "feature_dim": 2048},
    "(a) the same, gradient checkpointing": {
        "architecture": "visual_bert",
        "feature_dim": 2048,
        "gradient_checkpointing": True,
    },
    "(b) light": {"architecture": "light", "convolutions": [32, 64, 128, 256, 512], "fusion_dim": 512},
    "(c) BERT + ResNet-50": {"architecture": "bert_resnet", "image_encoder": "torchvision/resnet50"},
}


def main() -> None:
    """Times every student and prints a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    options = parser.parse_args()
    print(f"batch {options.batch}, {options.precision}, {options.device}, {torch.get_num_threads()} threads")
    print("| student | million parameters | learn | ms/picture | epoch of 10 % of COCO | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in STUDENTS:
        # a process of its own for each, so that the peak of memory is its own
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            print(pool.submit(row, name, options).result(), flush=True)


def row(name: str, options: argparse.Namespace) -> str:
    """One line of the table."""
    settings, device = STUDENTS[name], torch.device(options.device)
    network = build_emotion_network(num_labels=LABELS, vocab_size=VOCABULARY, pad_id=0, **settings)[0].to(device)
    if "head only" in name:
        network.requires_grad_(False)
        network.head.requires_grad_(True)
    each = step_seconds(network, make_batch(settings, options.batch, device), options) / options.batch
    total, learning = (
        sum(p.numel() for p in network.parameters() if p.requires_grad or every) / 1e6 for every in (True, False)
    )
    return (
        f"| {name} | {total:.1f} | {learning:.1f} | {each * 1e3:.0f} | {hours(each * IMAGES)} | "
        f"{peak_memory(device):.1f} GiB |"
    )


def make_batch(settings: dict[str, Any], size: int, device: torch.device) -> Batch:
    """Random captions and pictures, or regions."""
    batch: Batch = {
        "caption_ids": torch.randint(1000, VOCABULARY, (size, TOKENS), device=device),
        "caption_lengths": torch.full((size,), TOKENS, device=device),
        "image_index": torch.arange(size, device=device),
        "image_id": [str(number) for number in range(size)],
        "labels": torch.rand(size, LABELS, device=device),
    }
    if "feature_dim" in settings:
        batch["features"] = torch.randn(size, 36, settings["feature_dim"], device=device)
        batch["feature_mask"] = torch.ones(size, 36, dtype=torch.bool, device=device)
    else:
        batch["image"] = torch.randn(size, 3, 224, 224, device=device)
    return batch


def step_seconds(network: torch.nn.Module, batch: Batch, options: argparse.Namespace) -> float:
    """Median time of a training step; the first one is not counted."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)
    network.train()
    times = []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        mixed = torch.autocast(options.device, torch.bfloat16) if options.precision == "bf16" else nullcontext()
        with mixed:
            logits = network(batch).logits
        F.binary_cross_entropy_with_logits(logits.float(), batch["labels"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        if options.device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def hours(seconds: float) -> str:
    """A time a person can read."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def peak_memory(device: torch.device) -> float:
    """GiB at most until now: of this process, or of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
