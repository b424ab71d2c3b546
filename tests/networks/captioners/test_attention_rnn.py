import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import Batch
from core.errors import UserError
from networks.captioners.attention_rnn import AttentionRNNCaptioner
from networks.captioners.base import Captioner
from networks.encoders.small_conv import SmallConvEncoder
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.attention import AttentionName, build_attention
from networks.layers.positions import pooled
from networks.layers.sequences import Memory
from tests.networks.captioners.region_laws import (
    BOS,
    EOS,
    IMAGES,
    LENGTHS,
    PAD,
    C,
    V,
    captions,
    check_attention_sums_to_one,
    check_padding_does_not_matter,
    features,
)

NAMES: list[AttentionName] = ["uniform", "bahdanau", "dot", "multi_head"]
VARIANTS = [
    *({"name": name, "cell": cell} for name, cell in itertools.product(NAMES, ["gru", "lstm"])),
    *({"name": name, "gated": True, "positions": True} for name in NAMES),
    {"name": "bahdanau", "tied_embeddings": True},
]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))


def build(name: AttentionName = "bahdanau", **options) -> AttentionRNNCaptioner:
    options = {"word_dim": 12, "dropout": 0.0} | options
    attention = build_attention(name, region_dim=8, hidden_dim=16, attention_dim=8, heads=2)
    return AttentionRNNCaptioner(
        attention=attention, vocab_size=V, feature_dim=C, bos_id=BOS, eos_id=EOS, pad_id=PAD, **options
    )


def unrolled(captioner: Captioner, memory: Memory, ids: Tensor, lengths: Tensor, images: Tensor) -> Tensor:
    """Logits of the real targets by one call of `step` for each token of each caption."""
    logits = []
    for row, length, image in zip(ids, lengths.tolist(), images.tolist(), strict=True):
        state = None
        own = {name: tensor[image : image + 1] for name, tensor in memory.items()}
        for token in row[: length - 1]:
            scores, state = captioner.step(own, token.view(1), state)
            logits.append(scores)
    return torch.cat(logits)


@every_variant
@pytest.mark.parametrize("masked", [False, True])
def test_the_pass_over_captions_is_the_unrolled_step(variant, masked):
    """For uniform attention this is the fused layer against the loop."""
    captioner = build(**variant)
    memory = captioner.encode(features(masked=masked))
    ids, lengths = captions(LENGTHS)
    output = captioner(memory, ids, lengths, IMAGES)
    torch.testing.assert_close(output.logits, unrolled(captioner, memory, ids, lengths, IMAGES))
    assert output.targets.tolist() == [t for row, n in zip(ids.tolist(), LENGTHS, strict=True) for t in row[1:n]]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_fused_layer_and_the_loop_have_the_same_gradients(cell, monkeypatch):
    captioner = build("uniform", cell=cell)
    ids, lengths = captions(LENGTHS)
    batch, found = features(), []
    for constant in (True, False):
        monkeypatch.setattr(type(captioner.decoder.attention), "constant", constant)
        captioner.zero_grad()
        output = captioner(captioner.encode(batch), ids, lengths, IMAGES)
        F.cross_entropy(output.logits, output.targets).backward()
        found.append((output, [parameter.grad.clone() for parameter in captioner.parameters()]))
    (fused, fused_grads), (loop, loop_grads) = found
    torch.testing.assert_close(fused.logits, loop.logits)
    torch.testing.assert_close(fused.attention, loop.attention)
    torch.testing.assert_close(fused_grads, loop_grads)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_step_by_hand_with_pytorchs_cell(cell):
    """s_t is the state before the step, z_t goes in with the previous word, the output sees state, z_t and word."""
    captioner = build("bahdanau", cell=cell)
    memory = captioner.encode(features(2))
    token = torch.tensor([3, 4])
    start = captioner.decoder.initial(memory["pooled"]).tanh().chunk(2 if cell == "lstm" else 1, dim=1)
    z, _ = captioner.decoder.attention(memory["features"], start[0])
    word = captioner.decoder.embedding(token)
    oracle = torch.nn.LSTMCell(20, 16) if cell == "lstm" else torch.nn.GRUCell(20, 16)
    oracle.load_state_dict({k.removesuffix("_l0"): v for k, v in captioner.decoder.cell.rnn.state_dict().items()})
    after = oracle(torch.cat([word, z], 1), (start[0], start[1]) if cell == "lstm" else start[0])
    hidden = after[0] if cell == "lstm" else after
    logits, state = captioner.step(memory, token, None)
    torch.testing.assert_close(state["hidden"], hidden)
    expected = captioner.decoder.vocabulary(captioner.decoder.merge(torch.cat([hidden, z, word], 1)).tanh())
    torch.testing.assert_close(logits, expected)


@every_variant
def test_attention_sums_to_one_until_the_caption_ends(variant):
    check_attention_sums_to_one(build(**variant))


@every_variant
def test_padding_and_masked_regions_do_not_matter(variant):
    check_padding_does_not_matter(build(**variant))


@every_variant
def test_every_parameter_learns_and_masked_regions_get_no_gradient(variant):
    captioner = build(**variant)
    batch = features(masked=True)
    batch["features"].requires_grad_()
    ids, lengths = captions(LENGTHS)
    output = captioner(captioner.encode(batch), ids, lengths, IMAGES)
    F.cross_entropy(output.logits, output.targets).backward()
    for name, parameter in captioner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-8, name
    assert (batch["features"].grad[~batch["feature_mask"]] == 0).all()


@every_variant
def test_the_loss_starts_near_log_v_and_falls(variant):
    captioner = build(**variant)
    ids, lengths = captions(LENGTHS)
    batch = features()
    optimizer = torch.optim.Adam(captioner.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        output = captioner(captioner.encode(batch), ids, lengths, IMAGES)
        losses.append(F.cross_entropy(output.logits, output.targets))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert abs(losses[0].item() - math.log(V)) < 0.35
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", NAMES)
def test_an_image_with_several_captions_is_the_image_repeated(name):
    captioner = build(name)
    batch = features(masked=True)
    ids, lengths = captions(LENGTHS)
    shared = captioner(captioner.encode(batch), ids, lengths, IMAGES)
    repeated: Batch = {"features": batch["features"][IMAGES], "feature_mask": batch["feature_mask"][IMAGES]}
    own = captioner(captioner.encode(repeated), ids, lengths, torch.arange(5))
    torch.testing.assert_close(shared.logits, own.logits)
    torch.testing.assert_close(shared.attention, own.attention)


@every_variant
def test_decoding(variant):
    """Greedy is a beam search of width 1; log_prob is the teacher-forced one, for beams, too."""
    captioner = build(**variant).eval()
    with torch.no_grad():
        captioner.decoder.vocabulary.weight.mul_(20)
    memory = captioner.encode(features(4, masked=True))
    greedy = decode(captioner, memory, DecodingSettings(max_tokens=8))
    beams = decode(captioner, memory, DecodingSettings(beams=3, num_captions=2, max_tokens=8))
    for found in (greedy, beams):
        for image, best in itertools.product(range(4), range(found.lengths.shape[1])):
            length = int(found.lengths[image, best])
            ids = torch.cat([torch.tensor([BOS]), found.token_ids[image, best, :length]]).unsqueeze(0)
            output = captioner(memory, ids, torch.tensor([length + 1]), torch.tensor([image]))
            log_prob = -F.cross_entropy(output.logits, output.targets, reduction="sum")
            torch.testing.assert_close(found.log_prob[image, best], log_prob, rtol=1e-4, atol=1e-4)
    token, state = torch.full((4,), BOS), None
    for step in range(int(greedy.lengths.min())):
        logits, state = captioner.step(memory, token, state)
        logits[:, [BOS, PAD]] = -torch.inf
        token = logits.argmax(1)
        assert torch.equal(token, greedy.token_ids[:, 0, step])


@pytest.mark.parametrize("name", NAMES)
def test_scheduled_sampling(name):
    captioner = build(name, dropout=0.0)
    memory = captioner.encode(features())
    ids, lengths = captions(LENGTHS)
    plain = captioner(memory, ids, lengths, IMAGES)
    assert torch.equal(captioner(memory, ids, lengths, IMAGES, scheduled_sampling=0.0).logits, plain.logits)
    drawn = captioner(memory, ids, lengths, IMAGES, scheduled_sampling=1.0)
    first = torch.tensor([0, 3, 9, 10, 16])  # the first word of a caption is read after BOS: nothing to draw
    torch.testing.assert_close(drawn.logits[first], plain.logits[first])
    assert not torch.allclose(drawn.logits, plain.logits)
    assert torch.equal(drawn.targets, plain.targets)


def test_draws_come_from_the_model_and_are_read_next():
    """With scores so large that the draw is certain, the pass is the model's own greedy path."""
    captioner = build("bahdanau")
    with torch.no_grad():
        captioner.decoder.vocabulary.weight.mul_(1e5)
    memory = captioner.encode(features())
    ids, lengths = captions([6, 4])
    images = torch.tensor([1, 0])
    output = captioner(memory, ids, lengths, images, scheduled_sampling=1.0)
    expected = []
    for length, image in zip([6, 4], [1, 0], strict=True):
        own = {name: tensor[image : image + 1] for name, tensor in memory.items()}
        token, state = torch.tensor([BOS]), None
        for _ in range(length - 1):
            logits, state = captioner.step(own, token, state)
            expected.append(logits)
            allowed = logits.detach().clone()
            allowed[:, [BOS, EOS, PAD]] = -torch.inf
            token = allowed.argmax(1)
    torch.testing.assert_close(output.logits, torch.cat(expected), rtol=1e-4, atol=0.1)  # logits are about 1e5


@pytest.mark.parametrize("name", ["uniform", "bahdanau"])
def test_half_precision(name):
    captioner = build(name)
    batch = features(masked=True)
    ids, lengths = captions(LENGTHS)
    expected = captioner(captioner.encode(batch), ids, lengths, IMAGES).logits
    batch["features"] = batch["features"].half()  # as the store has them
    with torch.autocast("cpu", torch.bfloat16):
        output = captioner(captioner.encode(batch), ids, lengths, IMAGES, scheduled_sampling=0.0)
        captioner(captioner.encode(batch), ids, lengths, IMAGES, scheduled_sampling=0.5)
        F.cross_entropy(output.logits, output.targets).backward()
    torch.testing.assert_close(output.logits.float(), expected, rtol=0.1, atol=0.05)


def test_an_encoder_makes_the_grid():
    captioner = AttentionRNNCaptioner(
        attention=build_attention("dot", region_dim=8, hidden_dim=16, attention_dim=8),
        vocab_size=V,
        feature_dim=128,
        encoder=SmallConvEncoder(num_outputs=16),
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    ).eval()
    image = torch.randn(2, 3, 32, 32)
    memory = captioner.encode({"image": image})
    assert memory["features"].shape == (2, 16, 8)
    stored = captioner.encode({"features": captioner.encoder.grid(image)})
    torch.testing.assert_close(memory, stored)


def test_positions_change_what_is_seen():
    captioner = build("dot", positions=True)
    batch = features()
    moved: Batch = {"features": batch["features"].roll(1, 1)}
    state = {"hidden": torch.randn(3, 16)}
    placed, elsewhere = (captioner.decoder._attend(captioner.encode(one), state)[1] for one in (batch, moved))
    assert not torch.allclose(placed.roll(1, 1), elsewhere, atol=1e-3)
    captioner.positions = False
    here, there = (captioner.decoder._attend(captioner.encode(one), state)[1] for one in (batch, moved))
    torch.testing.assert_close(here.roll(1, 1), there)


@pytest.mark.parametrize("normalize", [True, False])
def test_regions_are_normalised_unless_told_otherwise(normalize):
    attention = build_attention("dot", region_dim=8, hidden_dim=16, attention_dim=8)
    captioner = AttentionRNNCaptioner(
        attention=attention, vocab_size=V, feature_dim=C, normalize=normalize, bos_id=BOS, eos_id=EOS, pad_id=PAD
    ).eval()
    batch = features()
    projected = captioner.project(batch["features"])
    expected = F.layer_norm(projected, (8,)) if normalize else projected
    torch.testing.assert_close(captioner.encode(batch)["features"], expected)


def test_the_forget_gate_starts_open():
    rnn = build(cell="lstm").decoder.cell.rnn
    assert torch.equal((rnn.bias_ih_l0 + rnn.bias_hh_l0)[16:32], torch.ones(16))


def test_errors_say_what_to_do():
    captioner = build()
    with pytest.raises(UserError, match="no features and the network no image encoder"):
        captioner.encode({"image": torch.zeros(1, 3, 8, 8)})
    with pytest.raises(UserError, match="features have 7 channels and the network expects 10; set feature_dim"):
        captioner.encode({"features": torch.zeros(1, 4, 7)})
    with pytest.raises(UserError, match="feature_mask hides every region"):
        captioner.encode({"features": torch.zeros(1, 4, C), "feature_mask": torch.zeros(1, 4, dtype=torch.bool)})
    with pytest.raises(UserError, match="8 regions are not a square grid"):
        build(positions=True).encode({"features": torch.zeros(1, 8, C)})
    with pytest.raises(UserError, match="feature_dim=10, but the encoder's map has 128 channels"):
        build(encoder=SmallConvEncoder(num_outputs=16))
    with pytest.raises(UserError, match="cell 'rnn' is unknown; choose gru or lstm"):
        build(cell="rnn")


def test_pooled_grid_is_the_mean_of_real_regions():
    grid = torch.randn(2, 16, 3)
    mask = torch.ones(2, 16, dtype=torch.bool)
    whole, no_mask = pooled(grid, None, 2)
    corner = grid.view(2, 4, 4, 3)[:, :2, :2].reshape(2, 4, 3)
    torch.testing.assert_close(whole[:, 0], corner.mean(1))
    assert no_mask is None
    mask[0, [0, 1]] = False
    mask[1, [0, 1, 4, 5]] = False
    some, left = pooled(grid.masked_fill(~mask.unsqueeze(2), 0.0), mask, 2)
    torch.testing.assert_close(some[0, 0], grid[0, [4, 5]].mean(0))
    torch.testing.assert_close(some[:, 1:], whole[:, 1:])
    assert left.tolist() == [[True] * 4, [False, True, True, True]]
