"""Cost of captioning with beam search: this project's decoding against slower ways to the same captions.

All arms share the weights, the search and its settings, and must find the same tokens (asserted):

* ours: a picture is encoded once, keys and values of the tokens so far are kept.
* no cache, our towers: a picture is encoded once, but every step reads all tokens of every beam again (scores at the
  last one only).
* no cache: the same with the towers as the libraries give them.
* no reuse: as that, and the picture is encoded at every step for every beam, as in the published code.

EfficientNet-B4 and GPT-2 small in float32 with random weights; captions are forced to one length by an unreachable
EOS. The last arm gets fewer pictures, since its cost grows with every one. Runs of the arms alternate; medians are
printed.

    python benchmarks/beam_search.py --repeats 3
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict

import torch
from dual_transfer_step import Published
from torch import Tensor

from core.batch import Batch
from networks.captioners.base import TokenIds
from networks.captioners.dual_transfer import DualTransferCaptioner
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings, Hypotheses
from networks.layers.sequences import Memory, State

EOS, BOS, PAD, VOCABULARY = 50256, 50257, 50258, 50259


class WithoutCache(DualTransferCaptioner):
    """Reads the whole prefix at every step; the state is the prefix itself."""

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Captioner.step`."""
        prefix = token.unsqueeze(1) if state is None else torch.cat([state["prefix"], token.unsqueeze(1)], dim=1)
        vector = memory["image"] if "image" in memory else self.encode({"image": memory["pixels"]})["image"]
        merged, _ = self.merging.step(vector, self.last_hidden(prefix), None)
        return self.language.logits(merged), {"prefix": prefix}

    def last_hidden(self, prefix: Tensor) -> Tensor:
        """Hidden state of the last token: `(B, t)` to `(B, D)`."""
        return self.language.hidden(prefix)[:, -1]


class WithoutCachePlain(WithoutCache):
    """The same with the towers as the libraries give them."""

    plain: Published

    def encode(self, batch: Batch) -> Memory:
        """See `Captioner.encode`."""
        return {"image": self.plain.image_tower(batch["image"])}

    def last_hidden(self, prefix: Tensor) -> Tensor:
        """See `WithoutCache`."""
        return self.plain.language_tower(input_ids=prefix, use_cache=False).last_hidden_state[:, -1]


class WithoutReuse(WithoutCachePlain):
    """Encodes the picture of every row at every step as well: its memory holds pixels."""


def caption(arm: DualTransferCaptioner, image: Tensor, settings: DecodingSettings) -> tuple[Hypotheses, float]:
    """Captions pictures; also the seconds it took, from pixels to tokens."""
    start = time.perf_counter()
    with torch.inference_mode():
        memory = {"pixels": image} if isinstance(arm, WithoutReuse) else arm.encode({"image": image})
        found = decode(arm, memory, settings)
    return found, time.perf_counter() - start


def build_arms() -> dict[str, DualTransferCaptioner]:
    """The arms with the same weights, loud enough that captions depend on the picture and never end."""
    torch.manual_seed(0)
    token_ids = TokenIds(vocab_size=VOCABULARY, bos_id=BOS, eos_id=EOS, pad_id=PAD)
    ours = DualTransferCaptioner(**token_ids).eval()
    with torch.no_grad():
        for parameter in ours.merging.parameters():
            parameter.mul_(5)
        # EOS scores 0, where the best of 50,000 random words are far above: no caption ends before its time
        table = ours.language.network.get_input_embeddings().weight
        table[EOS] = 0
        table.mul_(8)
    # replaced by the shared networks
    small = {"language_layers": 1, "language_heads": 1, "language_dim": 8, "image_encoder": "small-conv"}
    arms = {
        "ours": ours,
        "no cache, our towers": WithoutCache(**token_ids, **small),
        "no cache": WithoutCachePlain(**token_ids, **small),
        "no reuse": WithoutReuse(**token_ids, **small),
    }
    plain = Published(ours).eval()
    for arm in arms.values():
        arm.encoder, arm.language, arm.merging = ours.encoder, ours.language, ours.merging
        if isinstance(arm, WithoutCachePlain):
            arm.plain = plain
        arm.eval()
    return arms


def main() -> None:
    """Runs the arms and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each arm after one that is not counted")
    parser.add_argument("--images", type=int, default=16, help="pictures that are captioned together (paper: 16)")
    parser.add_argument("--slow_images", type=int, default=2, help="the same for the arm without reuse")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20, help="length of the captions")
    arguments = parser.parse_args()
    arms = build_arms()
    image = torch.randn(arguments.images, 3, 380, 380, generator=torch.Generator().manual_seed(1))
    settings = DecodingSettings(beams=arguments.beams, max_tokens=arguments.tokens)
    times = defaultdict(list)
    for repeat in range(arguments.repeats + 1):
        captions = {}
        for name, arm in arms.items():
            count = arguments.slow_images if isinstance(arm, WithoutReuse) else arguments.images
            captions[name], spent = caption(arm, image[:count], settings)
            if repeat:
                times[name].append(spent / count)
            print(f"run {repeat}: {name}: {spent / count:.2f} s per picture", file=sys.stderr, flush=True)
        for found in captions.values():
            same = torch.equal(found.token_ids, captions["ours"].token_ids[: len(found.token_ids)])
            assert same, "the arms wrote different captions"
            assert (found.lengths == arguments.tokens).all(), "captions are not of the length asked for"
    fastest = statistics.median(times["ours"])
    print(f"{torch.get_num_threads()} threads, {arguments}")
    print(f"{'':20} seconds per picture   ours is faster by")
    for name, values in times.items():
        print(f"{name:20} {statistics.median(values):19.2f} {statistics.median(values) / fastest:19.1f}")


if __name__ == "__main__":
    main()
