"""Cost of a training step for each caption: the published compute pattern against this project's.

Both arms train EfficientNet-B4 on 380 x 380 pictures, GPT-2 small and the merging network, with the same weights on
the same captions, and compute the same loss (asserted: cross-entropy over real tokens, dropout off; the timed steps
have dropout as published).

* published: a picture for every caption (batch of 8), captions padded to 36 tokens, merging network and 50,259 logits
  at every position, the networks as the libraries give them, Adam, float32.
* ours: `DualTransferCaptioner` on 8 pictures with 5 captions each, `token_loss`, fused Adam, float32; the last row is
  the same under bfloat16 autocast.

Runs of the arms alternate; medians are printed. Captions and pictures are those of `coco_mini` in the folder that the
environment variable CAPTION_DATA names, else noise with captions of usual lengths.

    python benchmarks/dual_transfer_step.py --repeats 3
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_pytorch import EfficientNet
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from core.batch import Batch
from networks.captioners.dual_transfer import DualTransferCaptioner
from networks.decoders.merging import MLPMerging
from networks.losses.tokens import token_loss

IMAGES, CAPTIONS, PADDED, PIXELS = 8, 5, 36, 380
EOS, BOS, PAD, VOCABULARY = 50256, 50257, 50258, 50259


class Published(nn.Module):
    """The published pattern, restated plainly."""

    def __init__(self, ours: DualTransferCaptioner) -> None:
        """Builds the networks as the libraries give them, with the weights of `ours`."""
        super().__init__()
        self.image_tower = EfficientNet.from_name("efficientnet-b4", image_size=None)
        self.image_tower.load_state_dict(ours.encoder.network.state_dict())
        self.language_tower = GPT2Model(GPT2Config(vocab_size=VOCABULARY))
        self.language_tower.load_state_dict(ours.language.network.state_dict())
        assert isinstance(ours.merging, MLPMerging)
        self.merging = MLPMerging(image_dim=ours.encoder.vector_dim, hidden_dim=ours.language.hidden_dim)
        self.merging.load_state_dict(ours.merging.state_dict())

    def forward(self, image: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits of all positions: `(N, 3, H, W)`, `(N, 36)`, `(N, 36)` to `(N, 36, V)`."""
        hidden = self.language_tower(input_ids=tokens, attention_mask=mask).last_hidden_state
        vector = self.image_tower(image).unsqueeze(1).expand(-1, tokens.shape[1], -1)
        layers = self.merging
        middle = layers.first_back(F.relu(layers.first(torch.cat([vector, hidden], dim=2)))) + hidden
        output = layers.second_back(F.relu(layers.second(middle))) + middle
        return output @ self.language_tower.wte.weight.T


def real_data(root: Path) -> tuple[Tensor, list[list[list[int]]]] | None:
    """Pictures and tokens of five captions each from coco_mini, or None where it is absent."""
    from datamodules.loading.tokenization import BPETokenizer
    from datamodules.readers.images import open_image
    from datamodules.readers.transforms import ImageTransform

    file = root / "coco_mini" / "annotations" / "captions_train2017.json"
    if not file.is_file() or not (root / "tokenizers" / "gpt2").is_dir():
        return None
    document = json.loads(file.read_text(encoding="utf-8"))
    tokenizer = BPETokenizer.load(str(root / "tokenizers" / "gpt2"), PADDED)
    captions = defaultdict(list)
    for annotation in document["annotations"]:
        captions[annotation["image_id"]].append(tokenizer.encode(" ".join(annotation["caption"].split())))
    chosen = document["images"][:IMAGES]
    transform = ImageTransform(size=PIXELS)
    pictures = [open_image(root / "coco_mini" / "train2017" / entry["file_name"]) for entry in chosen]
    image = torch.stack([transform(picture) for picture in pictures])
    return image, [captions[entry["id"]][:CAPTIONS] for entry in chosen]


def noise() -> tuple[Tensor, list[list[list[int]]]]:
    """Noise with captions of 8 to 20 words."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 16, (IMAGES, CAPTIONS), generator=generator).tolist()
    words = [[torch.randint(EOS, (n,), generator=generator).tolist() for n in row] for row in lengths]
    image = torch.randn(IMAGES, 3, PIXELS, PIXELS, generator=generator)
    return image, [[[BOS, *caption, EOS] for caption in row] for row in words]


def our_batch(image: Tensor, captions: list[list[list[int]]]) -> Batch:
    """8 pictures, 40 captions, padded to the longest."""
    flat = [caption for row in captions for caption in row]
    lengths = torch.tensor([len(caption) for caption in flat])
    ids = torch.full((len(flat), int(lengths.max())), PAD)
    for row, caption in zip(ids, flat, strict=True):
        row[: len(caption)] = torch.tensor(caption)
    index = torch.arange(IMAGES).repeat_interleave(CAPTIONS)
    return {"image": image, "caption_ids": ids, "caption_lengths": lengths, "image_index": index}


def our_loss(model: DualTransferCaptioner, batch: Batch) -> Tensor:
    """Loss of 40 captions."""
    memory = model.encode(batch)
    output = model(memory, batch["caption_ids"], batch["caption_lengths"], batch["image_index"])
    return token_loss(output.logits, output.targets)


def published_loss(model: Published, image: Tensor, captions: list[list[list[int]]], which: int) -> tuple[Tensor, int]:
    """Mean loss of 8 captions, one of each picture, and their number of real tokens."""
    tokens = torch.full((IMAGES, PADDED), PAD)
    targets = torch.full((IMAGES, PADDED), -100)
    for n, row in enumerate(captions):
        caption = torch.tensor(row[which])
        tokens[n, : len(caption) - 1], targets[n, : len(caption) - 1] = caption[:-1], caption[1:]
    logits = model(image, tokens, (tokens != PAD).long())
    count = int((targets >= 0).sum())
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100), count


def check_same_loss(
    ours: DualTransferCaptioner, published: Published, batch: Batch, captions: list[list[list[int]]]
) -> None:
    """Five published batches have the loss of our one."""
    dropouts = [m for model in (ours, published) for m in model.modules() if isinstance(m, nn.Dropout)]
    rates = [module.p for module in dropouts]
    towers = [ours.encoder.network, published.image_tower]
    kept = [tower._global_params for tower in towers]
    for module in dropouts:
        module.p = 0.0
    for tower in towers:
        tower._global_params = tower._global_params._replace(drop_connect_rate=0.0)
    with torch.no_grad():
        expected = [published_loss(published, batch["image"], captions, which) for which in range(CAPTIONS)]
        total = sum(count for _, count in expected)
        mean = sum(loss * count for loss, count in expected) / total
        found = our_loss(ours, batch)
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-4)
    print(f"loss of {IMAGES * CAPTIONS} captions ({total} tokens): published {mean:.5f}, ours {found:.5f}")
    for module, rate in zip(dropouts, rates, strict=True):
        module.p = rate
    for tower, parameters in zip(towers, kept, strict=True):
        tower._global_params = parameters


def seconds(step: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> float:
    """Time of forward, backward and update."""
    start = time.perf_counter()
    optimizer.zero_grad()
    step().backward()
    optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Runs the arms and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each arm after one that is not counted")
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    image, captions = real_data(Path(os.environ.get("CAPTION_DATA", "../shared/data"))) or noise()
    batch = our_batch(image, captions)
    ours = DualTransferCaptioner(
        vocab_size=VOCABULARY, bos_id=BOS, eos_id=EOS, pad_id=PAD, image_encoder="efficientnet-b4"
    ).train()
    published = Published(ours).train()
    check_same_loss(ours, published, batch, captions)
    our_adam = torch.optim.Adam(ours.parameters(), lr=3e-5, fused=True)
    published_adam = torch.optim.Adam(published.parameters(), lr=3e-5)

    def autocast_loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return our_loss(ours, batch)

    arms: dict[str, tuple[Callable[[], Tensor], torch.optim.Optimizer, int]] = {
        "published pattern, float32": (
            lambda: published_loss(published, image, captions, 0)[0],
            published_adam,
            IMAGES,
        ),
        "ours, float32": (lambda: our_loss(ours, batch), our_adam, IMAGES * CAPTIONS),
        "ours, bfloat16 autocast": (autocast_loss, our_adam, IMAGES * CAPTIONS),
    }
    times = defaultdict(list)
    for repeat in range(repeats + 1):
        for name, (step, optimizer, count) in arms.items():
            spent = seconds(step, optimizer) / count
            if repeat:
                times[name].append(spent)
            print(f"run {repeat}: {name}: {spent:.3f} s per caption", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    slowest = medians["published pattern, float32"]
    print(f"{torch.get_num_threads()} threads, {repeats} runs, {IMAGES} pictures of {PIXELS} x {PIXELS}")
    print(f"{'':28} seconds per caption   times faster")
    for name, median in medians.items():
        print(f"{name:28} {median:19.3f} {slowest / median:14.1f}")


if __name__ == "__main__":
    main()
