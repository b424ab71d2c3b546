"""Laws of the Transformer captioner."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from core.batch import Batch
from core.errors import UserError
from networks.captioners.transformer import TransformerCaptioner
from networks.decoders.transformer import DecoderBlock
from networks.generation.beams import beam_search
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.attention import RegionProjection
from networks.layers.pooling import RegionPooling
from networks.layers.positions import sinusoidal
from tests.networks.captioners.region_laws import (
    BOS,
    EOS,
    IMAGES,
    LENGTHS,
    PAD,
    C,
    R,
    V,
    captions,
    check_attention_sums_to_one,
    check_padding_does_not_matter,
    features,
)

D = 16
VARIANTS = [{}, {"layers": 1, "heads": 1}, {"positions": True}, {"pooling": "mean_max"}, {"tied_embeddings": False}]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v) or "plain")


def build(layers=3, heads=4, positions=False, pooled_side=None, pooling=None, dropout=0.0, **options):
    torch.manual_seed(0)
    return TransformerCaptioner(
        regions=RegionProjection(
            feature_dim=C, region_dim=D, pooled_side=pooled_side, dropout=dropout, positions=positions
        ),
        blocks=[DecoderBlock(hidden_dim=D, heads=heads, feedforward_dim=24, dropout=dropout) for _ in range(layers)],
        pooling=None if pooling is None else RegionPooling(pooling=pooling, feature_dim=C),
        dropout=dropout,
        vocab_size=V,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
        **options,
    )


@every_variant
@pytest.mark.parametrize("masked", [False, True])
def test_the_pass_over_captions_is_the_cached_step(variant, masked):
    captioner = build(**variant)
    memory = captioner.encode(features(masked=masked))
    ids, lengths = captions()
    output = captioner(memory, ids, lengths, IMAGES)
    steps = []
    for row, length, image in zip(ids, LENGTHS, IMAGES.tolist(), strict=True):
        own, state = {name: tensor[image : image + 1] for name, tensor in memory.items()}, None
        for token in row[: length - 1]:
            logits, state = captioner.step(own, token.view(1), state)
            steps.append(logits)
        assert all(cache.shape[3] == length - 1 for cache in state.values())
    torch.testing.assert_close(output.logits, torch.cat(steps), rtol=1e-4, atol=1e-5)
    assert output.targets.tolist() == [t for row, n in zip(ids.tolist(), LENGTHS, strict=True) for t in row[1:n]]


def test_a_block_is_pytorchs_decoder_layer():
    """The same weights in `nn.TransformerDecoderLayer`, with a causal mask and a mask of the regions."""
    torch.manual_seed(0)
    block = DecoderBlock(hidden_dim=D, heads=4, feedforward_dim=24, dropout=0.0)
    oracle = torch.nn.TransformerDecoderLayer(D, 4, 24, 0.0, activation=F.gelu, batch_first=True, norm_first=True)
    own = block.state_dict()
    weights = {f"norm{i + 1}.{kind}": own[f"norms.{i}.{kind}"] for i in range(3) for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        weights[f"self_attn.in_proj_{kind}"] = own[f"words.{kind}"]
        weights[f"self_attn.out_proj.{kind}"] = own[f"merge_words.{kind}"]
        weights[f"multihead_attn.in_proj_{kind}"] = torch.cat([own[f"query.{kind}"], own[f"regions.{kind}"]])
        weights[f"multihead_attn.out_proj.{kind}"] = own[f"merge_regions.{kind}"]
        weights[f"linear1.{kind}"], weights[f"linear2.{kind}"] = (
            own[f"feedforward.0.{kind}"],
            own[f"feedforward.3.{kind}"],
        )
    oracle.load_state_dict(weights)
    words, regions, mask = torch.randn(2, 5, D), torch.randn(2, R, D), torch.rand(2, R) < 0.7
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = oracle(words, regions, tgt_mask=causal, memory_key_padding_mask=~mask)
    keys_values = block.split(block.regions(regions))
    torch.testing.assert_close(block(words, keys_values, mask), expected)
    with_weights = block.read(words, keys_values, mask, attention=True)
    torch.testing.assert_close(with_weights.words, expected)
    asked = block.query(block.norms[1](words + oracle._sa_block(oracle.norm1(words), causal, None)))
    _, weights_of_oracle = torch.nn.functional.multi_head_attention_forward(
        *(asked.transpose(0, 1), regions.transpose(0, 1), regions.transpose(0, 1), D, 4),
        *(torch.cat([torch.eye(D), block.regions.weight]), torch.cat([torch.zeros(D), block.regions.bias])),
        *(None, None, False, 0.0, torch.eye(D), torch.zeros(D)),
        key_padding_mask=~mask,
    )
    torch.testing.assert_close(with_weights.attention, weights_of_oracle)


@every_variant
def test_attention_sums_to_one_over_real_regions_until_the_caption_ends(variant):
    check_attention_sums_to_one(build(**variant))


@every_variant
def test_padding_and_masked_regions_do_not_matter(variant):
    check_padding_does_not_matter(build(**variant), rtol=1e-5, atol=1e-6)


def test_a_later_word_changes_nothing_before_it():
    captioner = build()
    memory = captioner.encode(features())
    ids, lengths = captions()
    before = captioner(memory, ids, lengths, IMAGES)
    ids[1, 4] = 3 if ids[1, 4] != 3 else 4
    after = captioner(memory, ids, lengths, IMAGES)
    same = (before.logits - after.logits).abs().amax(1) < 1e-6
    first = LENGTHS[0] - 1  # targets of the caption before; position 4 of this one is read from its fifth target on
    assert same.tolist() == [not first + 4 <= place < first + 6 for place in range(len(same))]


@every_variant
def test_greedy_is_a_beam_of_one_and_scores_are_those_of_the_pass(variant):
    captioner = build(**variant).eval()
    with torch.no_grad():
        captioner.vocabulary.weight.mul_(3)
    memory = captioner.encode(features(4, masked=True))
    greedy = decode(captioner, memory, DecodingSettings(max_tokens=8))
    narrow = beam_search(captioner, memory, DecodingSettings(beams=1, max_tokens=8))
    assert torch.equal(greedy.token_ids, narrow.token_ids)
    torch.testing.assert_close(greedy.log_prob, narrow.log_prob)
    beams = decode(captioner, memory, DecodingSettings(beams=3, num_captions=2, max_tokens=8))
    for found in (greedy, beams):
        for image, best in itertools.product(range(4), range(found.lengths.shape[1])):
            length = int(found.lengths[image, best])
            ids = torch.cat([torch.tensor([BOS]), found.token_ids[image, best, :length]]).unsqueeze(0)
            output = captioner(memory, ids, torch.tensor([length + 1]), torch.tensor([image]))
            log_prob = -F.cross_entropy(output.logits, output.targets, reduction="sum")
            torch.testing.assert_close(found.log_prob[image, best], log_prob, rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients():
    """With dropout: the recomputation draws the same numbers."""
    batch, (ids, lengths) = features(masked=True), captions()
    found = []
    for recomputed in (False, True):
        captioner = build(dropout=0.2, gradient_checkpointing=recomputed).train()
        torch.manual_seed(1)
        output = captioner(captioner.encode(batch), ids, lengths, IMAGES)
        F.cross_entropy(output.logits, output.targets).backward()
        found.append((output.logits, {name: value.grad for name, value in captioner.named_parameters()}))
    torch.testing.assert_close(found[1], found[0])


def test_gradient_checkpointing_keeps_fewer_activations():
    batch, (ids, lengths) = features(), captions()
    kept = []
    for recomputed in (False, True):
        captioner = build(gradient_checkpointing=recomputed).train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            captioner(captioner.encode(batch), ids, lengths, IMAGES)
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0]


def test_a_tied_embedding_is_one_tensor():
    tied, own = build(), build(tied_embeddings=False)
    assert tied.vocabulary.weight is tied.embedding.weight
    assert own.vocabulary.weight is not own.embedding.weight
    assert sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in tied.parameters()) == V * D


@every_variant
def test_every_parameter_learns_and_masked_regions_get_no_gradient(variant):
    captioner = build(**variant)
    batch = features(masked=True)
    batch["features"].requires_grad_()
    ids, lengths = captions()
    output = captioner(captioner.encode(batch), ids, lengths, IMAGES)
    loss = F.cross_entropy(output.logits, output.targets)
    assert abs(loss.item() - math.log(V)) < 0.5
    loss.backward()
    for name, parameter in captioner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-8, name
    assert (batch["features"].grad[~batch["feature_mask"]] == 0).all()


def test_an_image_with_several_captions_is_the_image_repeated():
    captioner = build(pooling="mean")
    batch = features(masked=True)
    ids, lengths = captions()
    shared = captioner(captioner.encode(batch), ids, lengths, IMAGES)
    repeated: Batch = {"features": batch["features"][IMAGES], "feature_mask": batch["feature_mask"][IMAGES]}
    own = captioner(captioner.encode(repeated), ids, lengths, torch.arange(5))
    torch.testing.assert_close(shared.logits, own.logits)
    torch.testing.assert_close(shared.attention, own.attention)


def test_half_precision():
    captioner = build(pooling="mean")
    batch = features(masked=True)
    ids, lengths = captions()
    expected = captioner(captioner.encode(batch), ids, lengths, IMAGES).logits
    batch["features"] = batch["features"].half()  # as the store has them
    with torch.autocast("cpu", torch.bfloat16):
        memory = captioner.encode(batch)
        output = captioner(memory, ids, lengths, IMAGES)
        _, state = captioner.step(memory, torch.full((3,), BOS), None)
        captioner.step(memory, torch.full((3,), 5), state)
        F.cross_entropy(output.logits, output.targets).backward()
    torch.testing.assert_close(output.logits.float(), expected, rtol=0.1, atol=0.1)


def test_similar_images_are_found_by_the_summary():
    batch = features(masked=True)
    for captioner in (build(), build(pooling="mean")):
        memory = captioner.encode(batch)
        state = captioner.similarity_state(memory)
        assert state.shape == (3, D)
        assert state.dtype == torch.float32
    projected = build().regions(batch["features"], None)[0]
    mean = torch.stack([row[mask].mean(0) for row, mask in zip(projected, batch["feature_mask"], strict=True)])
    torch.testing.assert_close(build().similarity_state(build().encode(batch)), mean)


def test_order_of_regions_matters_with_positions_only():
    batch, (ids, lengths) = features(), captions()
    moved: Batch = {"features": batch["features"].roll(1, 1)}
    for positions in (False, True):
        captioner = build(positions=positions)
        one, other = (captioner(captioner.encode(x), ids, lengths, IMAGES).logits for x in (batch, moved))
        assert torch.allclose(one, other, atol=1e-5) is not positions


def test_word_positions():
    places = sinusoidal(3, 8)
    assert torch.equal(places[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(places[2, [0, 4]], torch.tensor([math.sin(2), math.cos(2)]))
    with pytest.raises(UserError, match="width=5 of a positional encoding is odd"):
        sinusoidal(3, 5)


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match="hidden_dim=16 cannot be shared among heads=3"):
        build(heads=3)
    with pytest.raises(UserError, match="8 regions are not a square grid"):
        build(positions=True).encode({"features": torch.zeros(1, 8, C)})
    with pytest.raises(UserError, match="no features and the network no image encoder"):
        build().encode({"image": torch.zeros(1, 3, 8, 8)})
