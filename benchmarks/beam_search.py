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
from collections.abc import Callable

import torch
from dual_transfer_step import Published
from measuring import Row, add_json_option, available_threads, print_rows, take_turns, write_rows
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


def caption(arm: DualTransferCaptioner, image: Tensor, settings: DecodingSettings) -> Hypotheses:
    """Captions pictures, from pixels to tokens."""
    with torch.inference_mode():
        memory = {"pixels": image} if isinstance(arm, WithoutReuse) else arm.encode({"image": image})
        return decode(arm, memory, settings)


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


def measure(images: dict[str, int], settings: DecodingSettings, repeats: int) -> list[Row]:
    """Lets the arms take turns, each with so many pictures, and compares their captions."""
    arms = {name: arm for name, arm in build_arms().items() if images[name]}
    image = torch.randn(max(images.values()), 3, 380, 380, generator=torch.Generator().manual_seed(1))
    captions: dict[str, Hypotheses] = {}

    def way(name: str) -> Callable[[], None]:
        return lambda: captions.update({name: caption(arms[name], image[: images[name]], settings)})

    clock = take_turns({name: way(name) for name in arms}, repeats, tell=True)
    for found in captions.values():
        same = torch.equal(found.token_ids, captions["ours"].token_ids[: len(found.token_ids)])
        assert same, "the arms wrote different captions"
        assert (found.lengths == settings.max_tokens).all(), "captions are not of the length asked for"
    spent = clock.medians()
    return [
        Row(
            figure=f"beam search, against {name}",
            kind="times",
            value=clock.ratio(name, "ours").times(images["ours"] / images[name]),
            goal=None,
            unit="picture",
            ours=spent["ours"].times(1 / images["ours"]),
            baseline=spent[name].times(1 / images[name]),
            threads=torch.get_num_threads(),
        )
        for name in arms
        if name != "ours"
    ]


def main() -> None:
    """Runs the arms and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each arm after one that is not counted")
    parser.add_argument("--images", type=int, default=16, help="pictures that are captioned together (paper: 16)")
    parser.add_argument("--slow_images", type=int, default=2, help="the same for the arm without reuse; 0: none")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20, help="length of the captions")
    parser.add_argument("--threads", type=int, default=available_threads())
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = dict.fromkeys(("ours", "no cache, our towers", "no cache"), options.images)
    settings = DecodingSettings(beams=options.beams, max_tokens=options.tokens)
    rows = measure({**images, "no reuse": options.slow_images}, settings, options.repeats)
    print(f"{options.threads} threads, {options.images} pictures, beams {options.beams}, {options.tokens} tokens")
    print_rows(rows)
    write_rows(options.json, rows)


if __name__ == "__main__":
    main()
