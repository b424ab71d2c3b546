"""Cost of a training step for each caption: the published compute pattern against this project's.

All arms train the language model GPT-2 small and the merging network on the vectors of EfficientNet-B4, with the same
weights on the same captions and pictures of 380 x 380, and compute the same loss (asserted: cross-entropy over real
tokens, dropout off; the timed steps have dropout as published).

* published: a picture for every caption (batch of 8), captions padded to 36 tokens, merging network and 50,259 logits
  at every position, the networks as the libraries give them, Adam, float32; all of it learns, or the image network is
  frozen and computes its vectors all the same.
* ours: `DualTransferCaptioner` on 8 pictures with 5 captions each, `token_loss`, fused Adam, float32 and, where the
  processor has instructions for it, under bfloat16 autocast; all of it learns, or the vectors of the frozen image
  network come from a store, in half precision.

Runs of the arms alternate; quotients are medians of those of a turn. Captions and pictures are those of `coco_mini` in
the folder that the environment variable CAPTION_DATA names, else noise with captions of usual lengths.

    python benchmarks/dual_transfer_step.py --repeats 3
"""

import argparse
import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_pytorch import EfficientNet
from measuring import (
    Row,
    add_json_option,
    available_threads,
    has_bfloat16,
    print_rows,
    take_turns,
    training_step,
    work_of,
    write_rows,
)
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
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.image_tower.training):  # frozen: evaluated
            vector = self.image_tower(image)
        vector = vector.unsqueeze(1).expand(-1, tokens.shape[1], -1)
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


@contextlib.contextmanager
def without_dropout(*models: nn.Module) -> Iterator[None]:
    """No dropout and no stochastic depth for a while."""
    dropouts = {module: module.p for model in models for module in model.modules() if isinstance(module, nn.Dropout)}
    towers = [module for model in models for module in model.modules() if isinstance(module, EfficientNet)]
    kept = [tower._global_params for tower in towers]
    for module in dropouts:
        module.p = 0.0
    for tower in towers:
        tower._global_params = tower._global_params._replace(drop_connect_rate=0.0)
    yield
    for module, rate in dropouts.items():
        module.p = rate
    for tower, parameters in zip(towers, kept, strict=True):
        tower._global_params = parameters


def stored_features(ours: DualTransferCaptioner, image: Tensor) -> Tensor:
    """The vectors that a store of the frozen image network gives, `(8, 1, 1000)`: in half precision on the disk."""
    assert ours.encoder is not None
    ours.encoder.eval()
    with torch.inference_mode():
        vectors = ours.encoder.vector(image).half()
    ours.encoder.train()
    return vectors.float().unsqueeze(1).clone()


@dataclass(frozen=True)
class Models:
    """The models of all arms, which share their initial weights."""

    published: Published
    ours: DualTransferCaptioner
    stored: DualTransferCaptioner
    image: Tensor
    captions: list[list[list[int]]]
    batch: Batch
    features: Batch

    @classmethod
    def build(cls) -> "Models":
        """Builds them on real data, or noise."""
        torch.manual_seed(0)
        image, captions = real_data(Path(os.environ.get("CAPTION_DATA", "../shared/data"))) or noise()
        tokens = {"vocab_size": VOCABULARY, "bos_id": BOS, "eos_id": EOS, "pad_id": PAD}
        ours = DualTransferCaptioner(**tokens, image_encoder="efficientnet-b4").train()
        small = {"language_layers": 1, "language_heads": 1, "language_dim": 8}  # replaced by ours
        stored = DualTransferCaptioner(**tokens, image_encoder=None, feature_dim=ours.vector_dim, **small).train()
        stored.language, stored.merging = ours.language, ours.merging
        batch = our_batch(image, captions)
        features = {name: value for name, value in batch.items() if name != "image"}
        features["features"] = stored_features(ours, image)
        return cls(Published(ours).train(), ours, stored, image, captions, batch, features)

    def losses(self) -> dict[str, Callable[[], Tensor]]:
        """The loss of every arm."""

        def published(*, frozen: bool) -> Tensor:
            self.published.image_tower.train(not frozen)
            return published_loss(self.published, self.image, self.captions, 0)[0]

        def autocast(model: DualTransferCaptioner, batch: Batch) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return our_loss(model, batch)

        losses = {
            "published": lambda: published(frozen=False),
            "published, frozen": lambda: published(frozen=True),
            "float32": lambda: our_loss(self.ours, self.batch),
            "bfloat16": lambda: autocast(self.ours, self.batch),
            "float32, stored tower": lambda: our_loss(self.stored, self.features),
            "bfloat16, stored tower": lambda: autocast(self.stored, self.features),
        }
        return {name: loss for name, loss in losses.items() if has_bfloat16() or not name.startswith("bfloat16")}

    @torch.no_grad()
    def check_same_loss(self) -> None:
        """Five published batches have the loss of one of ours, with a tower that learns and with a frozen one."""
        losses = self.losses()
        bounds = {"float32": 1e-4, "bfloat16": 5e-3, "float32, stored tower": 1e-3, "bfloat16, stored tower": 5e-3}
        with without_dropout(self.ours, self.stored, self.published):
            for frozen in (True, False):  # training changes the running statistics that evaluation uses
                self.published.image_tower.train(not frozen)
                found = [published_loss(self.published, self.image, self.captions, which) for which in range(CAPTIONS)]
                total = sum(count for _, count in found)
                mean = sum(loss * count for loss, count in found) / total
                base = "published, frozen" if frozen else "published"
                print(f"loss of {IMAGES * CAPTIONS} captions ({total} tokens), {base}: {mean:.5f}")
                for name in (name for name in bounds if name in losses and ("stored" in name) == frozen):
                    loss = losses[name]()
                    print(f"the same, ours, {name}: {loss:.5f}", flush=True)
                    torch.testing.assert_close(loss, mean, rtol=bounds[name], atol=0)
            self.published.image_tower.train()


GOALS = {"float32": 10, "bfloat16": 20, "float32, stored tower": 20, "bfloat16, stored tower": 20}


def measure(repeats: int) -> list[Row]:
    """Checks the losses, runs the arms in turns and returns the figures."""
    models = Models.build()
    models.check_same_loss()
    losses = models.losses()
    names = [name for name in GOALS if name in losses]
    published = torch.optim.Adam(models.published.parameters(), lr=3e-5)
    ours = torch.optim.Adam(models.ours.parameters(), lr=3e-5, fused=True)
    stored = torch.optim.Adam(models.stored.parameters(), lr=3e-5, fused=True)
    optimizers = {name: stored if "stored" in name else ours for name in names}
    ways = {name: training_step(loss, optimizers.get(name, published)) for name, loss in losses.items()}
    clock = take_turns(ways, repeats, tell=True)
    work = {name: work_of(losses[name], optimizers[name].param_groups[0]["params"]) for name in names}
    spent, rows = clock.medians(), []
    for name in names:
        for base in ("published", "published, frozen") if "stored" in name else ("published",):
            flops, size = (amount / (IMAGES * CAPTIONS) for amount in work[name])
            rows.append(
                Row(
                    figure=f"dual transfer, {name}" + ", against a frozen tower" * (base != "published"),
                    kind="times",
                    value=clock.ratio(base, name).times(CAPTIONS),
                    goal=GOALS[name] if base == "published" else None,
                    unit="caption",
                    ours=spent[name].times(1 / (IMAGES * CAPTIONS)),
                    baseline=spent[base].times(1 / IMAGES),
                    dtype=name.partition(",")[0],
                    flops=flops,
                    bytes=size,
                    threads=torch.get_num_threads(),
                )
            )
    return rows


def main() -> None:
    """Runs the arms and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each arm after one that is not counted")
    parser.add_argument("--threads", type=int, default=available_threads())
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(options.repeats)
    write_rows(options.json, rows)
    print(f"{options.threads} threads, {options.repeats} runs, {IMAGES} pictures of {PIXELS} x {PIXELS}")
    print_rows(rows)


if __name__ == "__main__":
    main()
