import itertools

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMixin, TopPLogitsWarper

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner
from networks.generation.beams import _top, beam_search
from networks.generation.search import _draw, decode
from networks.generation.settings import DecodingSettings, Hypotheses
from networks.layers.sequences import CaptionOutput, Memory, State, target_mask

BOS, EOS, PAD = 0, 1, 2


class TableCaptioner(Captioner):
    """The next token depends on the image, the step and the last token: a table that can be searched exhaustively."""

    def __init__(self, table: Tensor, eos: int = EOS) -> None:
        super().__init__(vocab_size=table.shape[-1], bos_id=BOS, eos_id=eos, pad_id=PAD)
        self.table = table  # (B, steps, V, V)
        self.rows_seen: list[int] = []

    def encode(self, batch: Batch) -> Memory:
        return {"image": torch.arange(len(self.table))}

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        time = torch.zeros_like(token) if state is None else state["time"]
        self.rows_seen.append(len(token))
        return self.table[memory["image"], time, token], {"time": time + 1}

    def forward(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> CaptionOutput:
        steps = torch.arange(caption_ids.shape[1] - 1)
        logits = self.table[memory["image"][image_index].unsqueeze(1), steps, caption_ids[:, :-1]]
        mask = target_mask(caption_lengths, caption_ids.shape[1])
        return CaptionOutput(logits=logits[mask], targets=caption_ids[:, 1:][mask])


def table(images: int = 3, steps: int = 6, vocab: int = 6, scale: float = 1.0, seed: int = 0) -> TableCaptioner:
    generator = torch.Generator().manual_seed(seed)
    return TableCaptioner(scale * torch.randn(images, steps, vocab, vocab, generator=generator))


class HuggingFace(GPT2LMHeadModel):
    """A tiny GPT-2 whose logits get a vector of the image added."""

    def forward(self, input_ids: Tensor, image: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs):
        output = super().forward(input_ids, attention_mask=attention_mask, **kwargs)
        output.logits = output.logits + self.image_head[image].unsqueeze(1)
        return output

    def prepare_inputs_for_generation(self, input_ids: Tensor, image: Tensor | None = None, **kwargs):
        return GenerationMixin.prepare_inputs_for_generation(self, input_ids, **kwargs) | {"image": image}


class GPT2Captioner(TableCaptioner):
    """The same network behind our interface."""

    def __init__(self, network: HuggingFace) -> None:
        Captioner.__init__(self, vocab_size=network.config.vocab_size, bos_id=BOS, eos_id=EOS, pad_id=PAD)
        self.network = network
        self.rows_seen = []

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        self.rows_seen.append(len(token))
        layers = self.network.config.n_layer
        cache = DynamicCache(None if state is None else [(state[f"k{i}"], state[f"v{i}"]) for i in range(layers)])
        output = self.network.transformer(token.unsqueeze(1), cache, use_cache=True)  # its keyword was renamed
        logits = self.network.lm_head(output.last_hidden_state[:, 0]) + self.network.image_head[memory["image"]]
        state = {}
        for i, layer in enumerate(cache.layers):
            state |= {f"k{i}": layer.keys, f"v{i}": layer.values}
        return logits, state


@pytest.fixture(scope="module")
def hugging_face() -> HuggingFace:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=150,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    network = HuggingFace(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5)
        network.image_head = torch.randn(4, 150)
        network.transformer.wte.weight[EOS] = 0
        network.image_head[:, EOS] = torch.tensor([-2.0, 1.0, 3.0, 5.0])  # so that captions end, some early, some late
    return network


def check_same_tokens(ours: Hypotheses, theirs: Tensor) -> None:
    theirs = theirs[:, 1:]
    ours_flat = ours.token_ids.flatten(0, 1)
    width = min(ours_flat.shape[1], theirs.shape[1])
    assert torch.equal(ours_flat[:, :width], theirs[:, :width])
    assert (ours_flat[:, width:] == PAD).all()
    assert (theirs[:, width:] == PAD).all()


@pytest.mark.parametrize("ngram", [0, 2])
@pytest.mark.parametrize(
    ("beams", "length_penalty", "early_stopping"),
    [(1, 1.0, True), *itertools.product([3, 5, 64], [0.0, 1.0, 2.0], [True, False])],
)
def test_tokens_and_scores_are_those_of_hugging_face(hugging_face, beams, length_penalty, early_stopping, ngram):
    count = min(beams, 3)
    extra = {"length_penalty": length_penalty, "early_stopping": early_stopping} if beams > 1 else {}
    theirs = hugging_face.generate(
        torch.full((4, 1), BOS), image=torch.arange(4), attention_mask=torch.ones(4, 1, dtype=torch.long),
        num_beams=beams, num_return_sequences=count, do_sample=False, max_new_tokens=10, suppress_tokens=[BOS, PAD],
        no_repeat_ngram_size=ngram, return_dict_in_generate=True, output_scores=True, **extra,
    )  # fmt: skip
    captioner = GPT2Captioner(hugging_face)
    settings = DecodingSettings(
        beams=beams,
        num_captions=count,
        max_tokens=10,
        length_penalty=length_penalty,
        no_repeat_ngram_size=ngram,
        early_stopping=early_stopping,
    )
    ours = decode(captioner, {"image": torch.arange(4)}, settings)
    check_same_tokens(ours, theirs.sequences)
    assert captioner.rows_seen[0] == 4
    if beams > 1:
        score = ours.log_prob / ours.lengths**length_penalty
        torch.testing.assert_close(score.flatten(), theirs.sequences_scores, rtol=1e-4, atol=1e-4)


def test_the_oracle_sees_short_long_and_cut_captions(hugging_face):
    settings = DecodingSettings(beams=5, max_tokens=10, num_captions=5)
    lengths = decode(GPT2Captioner(hugging_face), {"image": torch.arange(4)}, settings).lengths
    assert lengths.min() < 4
    assert lengths.max() > 6


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ngram", [0, 1, 2])
def test_greedy_is_beam_search_of_width_one(seed, ngram):
    captioner = table(seed=seed)
    settings = DecodingSettings(max_tokens=6, no_repeat_ngram_size=ngram)
    memory = captioner.encode({})
    greedy, beam = decode(captioner, memory, settings), beam_search(captioner, memory, settings)
    assert torch.equal(greedy.token_ids, beam.token_ids)
    torch.testing.assert_close(greedy.log_prob, beam.log_prob)
    assert torch.equal(greedy.lengths, beam.lengths)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_batch_of_images_is_each_image_alone(beams):
    captioner = table(images=5, scale=2.0)
    settings = DecodingSettings(beams=beams, num_captions=beams, max_tokens=6)
    together = decode(captioner, captioner.encode({}), settings)
    for image in range(5):
        alone = decode(captioner, {"image": torch.tensor([image])}, settings)
        width = alone.token_ids.shape[-1]
        assert torch.equal(together.token_ids[image, :, :width], alone.token_ids[0])
        assert (together.token_ids[image, :, width:] == PAD).all()
        assert torch.equal(together.log_prob[image], alone.log_prob[0])


@pytest.mark.parametrize(
    "settings",
    [
        DecodingSettings(max_tokens=6),
        DecodingSettings(beams=4, num_captions=3, max_tokens=6),
        DecodingSettings(beams=4, num_captions=3, max_tokens=6, no_repeat_ngram_size=2),
        DecodingSettings(num_captions=4, max_tokens=6, sample=True, top_p=0.8, temperature=1.5),
    ],
)
def test_log_prob_is_the_teacher_forced_sum_and_special_tokens_never_come(settings):
    captioner = table(steps=8, vocab=9)
    found = decode(captioner, captioner.encode({}), settings, torch.Generator().manual_seed(0))
    assert not ((found.token_ids == BOS) | ((found.token_ids == PAD) & (place(found) < found.lengths[..., None]))).any()
    assert (found.log_prob[:, :-1] >= found.log_prob[:, 1:]).all() or settings.beams > 1
    captions = torch.cat([torch.full_like(found.token_ids[..., :1], BOS), found.token_ids], -1).flatten(0, 1)
    lengths = found.lengths.flatten() + 1
    images = torch.arange(3).repeat_interleave(settings.num_captions)
    output = captioner(captioner.encode({}), captions, lengths, images)
    scores = output.logits.log_softmax(1).gather(1, output.targets[:, None])[:, 0]
    sums = torch.stack([part.sum() for part in scores.split((lengths - 1).tolist())])
    torch.testing.assert_close(sums, found.log_prob.flatten())
    ends = captions.gather(1, lengths[:, None] - 1)[:, 0] == EOS
    assert (ends | (lengths - 1 == 6)).all()


def place(found: Hypotheses) -> Tensor:
    return torch.arange(found.token_ids.shape[-1]).expand_as(found.token_ids)


def exhaustive(captioner: TableCaptioner, image: int, steps: int) -> list[tuple[float, list[int]]]:
    """Every caption with its log-probability, best first."""
    scores = captioner.table[image].log_softmax(-1)
    words = [w for w in range(captioner.vocab_size) if w not in (BOS, EOS, PAD)]
    captions = [[*c, EOS] for n in range(steps) for c in itertools.product(words, repeat=n)]
    captions += [list(c) for c in itertools.product(words, repeat=steps)]
    return sorted(
        ((sum(scores[t, a, b].item() for t, (a, b) in enumerate(itertools.pairwise([BOS, *c]))), c) for c in captions),
        reverse=True,
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_is_exhaustive_search_and_no_width_beats_it(seed):
    captioner = table(images=2, steps=4, vocab=5, seed=seed)
    for image in range(2):
        everything = exhaustive(captioner, image, 4)
        memory = {"image": torch.tensor([image])}
        for beams in (1, 2, 3, 5, 8, 64):
            settings = DecodingSettings(
                beams=beams, num_captions=min(beams, 4), max_tokens=4, length_penalty=0.0, early_stopping=False
            )
            found = beam_search(captioner, memory, settings)
            assert found.log_prob[0, 0] <= everything[0][0] + 1e-5
        for k, (log_prob, caption) in enumerate(everything[:4]):
            assert found.token_ids[0, k, : found.lengths[0, k]].tolist() == caption
            assert found.log_prob[0, k].item() == pytest.approx(log_prob, abs=1e-5)


def test_more_beams_than_captions_leave_the_rest_empty():
    captioner = table(images=1, steps=2, vocab=4)  # one word: [EOS], [word EOS] or [word word]
    found = decode(
        captioner, captioner.encode({}), DecodingSettings(beams=8, num_captions=8, max_tokens=2, early_stopping=False)
    )
    assert found.lengths[0].tolist()[3:] == [0] * 5
    assert torch.isneginf(found.log_prob[0, 3:]).all()
    assert found.log_prob[0, :3].exp().sum() < 1
    assert (found.token_ids[0, 3:] == PAD).all()


def test_sampling_with_vanishing_top_p_or_temperature_is_greedy():
    captioner = table()
    greedy = decode(captioner, captioner.encode({}), DecodingSettings(max_tokens=6))
    for extra in ({"top_p": 1e-6}, {"temperature": 1e-4}):
        settings = DecodingSettings(max_tokens=6, sample=True, num_captions=2, **extra)
        sampled = decode(captioner, captioner.encode({}), settings)
        assert torch.equal(sampled.token_ids[:, 0], greedy.token_ids[:, 0])
        assert torch.equal(sampled.token_ids[:, 1], greedy.token_ids[:, 0])


def test_sampled_first_tokens_have_the_right_frequencies():
    captioner = table(images=1, steps=1, vocab=8)
    settings = DecodingSettings(num_captions=20_000, max_tokens=1, sample=True, temperature=1.3)
    found = decode(captioner, captioner.encode({}), settings, torch.Generator().manual_seed(0))
    logits = captioner.table[0, 0, BOS] / 1.3
    logits[[BOS, PAD]] = -torch.inf
    frequencies = found.token_ids.flatten().bincount(minlength=8) / 20_000
    torch.testing.assert_close(frequencies, logits.softmax(0), rtol=0, atol=0.015)


@pytest.mark.parametrize("top_p", [0.2, 0.5, 0.9])
def test_the_nucleus_is_that_of_hugging_face(top_p):
    logits = 2 * torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    expected = TopPLogitsWarper(top_p)(None, logits).softmax(1)[0]
    draws = _draw(
        logits.expand(20_000, -1), DecodingSettings(sample=True, top_p=top_p), torch.Generator().manual_seed(0)
    )
    frequencies = draws.bincount(minlength=12) / 20_000
    assert (frequencies[expected == 0] == 0).all()
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=0.015)


def test_one_seed_gives_one_set_of_samples():
    captioner, settings = table(), DecodingSettings(num_captions=3, max_tokens=6, sample=True)
    first, second = (
        decode(captioner, captioner.encode({}), settings, torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first.token_ids, second.token_ids)


@pytest.mark.parametrize("settings", [DecodingSettings(max_tokens=6), DecodingSettings(beams=3, max_tokens=6)])
def test_finished_images_cost_nothing(settings):
    logits = torch.zeros(4, 6, 8, 8)
    for image in range(4):
        logits[image, :, :, 5] = 9.0
        logits[image, image:, :, EOS] = 40.0  # image i ends after i words
    captioner = TableCaptioner(logits)
    found = decode(captioner, captioner.encode({}), settings)
    if settings.beams == 1:
        assert captioner.rows_seen == [4, 3, 2, 1]
    assert captioner.rows_seen[0] == 4
    assert captioner.rows_seen[-1] <= settings.beams * 4
    assert found.lengths[:, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(3, 7), (2, 64 * 100 + 13), (1, 5000)])
@pytest.mark.parametrize("count", [1, 6, 20])
def test_top_of_groups_is_the_exact_top(shape, count):
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    scores[:, -1] = 9.0  # in the part behind the last full group
    values, index = _top(scores, count)
    torch.testing.assert_close(values, scores.topk(min(count, shape[1]), dim=1).values)
    assert torch.equal(scores.gather(1, index), values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beams": 0}, "beams=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"num_captions": 3, "beams": 2}, "num_captions=3 needs at least as many beams"),
        ({"sample": True, "beams": 2}, "exclude each other"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(UserError, match=message):
        DecodingSettings(**values)


@pytest.mark.parametrize(
    "settings",
    [
        DecodingSettings(max_tokens=6),
        DecodingSettings(beams=4, num_captions=4, max_tokens=6),
        DecodingSettings(num_captions=4, max_tokens=6, sample=True),
    ],
)
def test_the_token_of_unknown_words_is_never_written(settings):
    captioner = table(steps=8, vocab=9)
    before = decode(captioner, captioner.encode({}), settings, torch.Generator().manual_seed(0)).token_ids
    captioner.unk_id = int(before[before > PAD].mode().values)
    after = decode(captioner, captioner.encode({}), settings, torch.Generator().manual_seed(0)).token_ids
    assert not (after == captioner.unk_id).any()
    assert (after > PAD).any()
