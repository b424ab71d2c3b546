import json

import pytest
import torch

from core.errors import UserError
from networks.captioners.dual_transfer import DualTransferCaptioner
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.sequences import target_mask
from networks.losses.tokens import token_loss

FEATURES = {"image_encoder": None, "image_outputs": None, "feature_dim": 10}
VARIANTS = ["mlp", "layer_norm", "batch_norm", "gru", "two_sided"]


def tiny(merging: str = "mlp", **changes) -> DualTransferCaptioner:
    torch.manual_seed(0)
    arguments = {"image_encoder": "small-conv", "image_outputs": 24, "dropout": 0.0}
    sizes = {"language_layers": 2, "language_heads": 2, "language_dim": 16}
    return DualTransferCaptioner(
        vocab_size=20, bos_id=1, eos_id=2, pad_id=0, merging=merging, max_tokens=9, **(arguments | sizes | changes)
    )


def rebuilt(model: DualTransferCaptioner, **changes) -> DualTransferCaptioner:
    """The same network from plain values, as a checkpoint has them."""
    config = json.loads(json.dumps(model.language.config_dict()))
    sizes = {"language_layers": None, "language_heads": None, "language_dim": None, "dropout": None}
    again = tiny(**(sizes | changes), language_config=config).eval()
    again.load_state_dict(model.state_dict())
    return again


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([9, 4, 2, 6, 5])
    ids = torch.randint(3, 20, (5, 9), generator=generator)
    ids[:, 0] = 1
    ids[torch.arange(5), lengths - 1] = 2
    ids[torch.arange(9) >= lengths[:, None]] = 0
    image = torch.randn(3, 3, 32, 32, generator=generator)
    return {
        "image": image,
        "caption_ids": ids,
        "caption_lengths": lengths,
        "image_index": torch.tensor([0, 0, 1, 2, 2]),
    }


def run(model: DualTransferCaptioner, data: dict[str, torch.Tensor]):
    return model(model.encode(data), data["caption_ids"], data["caption_lengths"], data["image_index"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains(variant):
    model, data = tiny(variant).train(), batch()
    output = run(model, data)
    assert output.logits.shape == (21, 20)
    loss = token_loss(output.logits, output.targets)
    loss.backward()
    assert abs(loss.item() - torch.tensor(20.0).log().item()) < 0.5
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        now = token_loss(*(lambda out: (out.logits, out.targets))(run(model, data)))
        now.backward()
        optimizer.step()
    assert now < 0.5 * loss


def test_targets_are_the_words_and_eos_and_padding_does_not_matter():
    model, data = tiny().eval(), batch()
    output = run(model, data)
    mask = target_mask(data["caption_lengths"], 9)
    assert torch.equal(output.targets, data["caption_ids"][:, 1:][mask])
    assert (output.targets == 2).sum() == 5
    other = dict(data, caption_ids=data["caption_ids"].clone())
    other["caption_ids"][data["caption_ids"] == 0] = 7
    torch.testing.assert_close(run(model, other).logits, output.logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_give_the_teacher_forced_logits(variant):
    model, data = tiny(variant), batch()
    run(model.train(), data)
    model.eval()
    memory = model.encode(data)
    output = run(model, data)
    places = torch.full((5, 8), -1)
    mask = target_mask(data["caption_lengths"], 9)
    places[mask] = torch.arange(21)
    state = None
    rows = {"image": memory["image"][data["image_index"]]}
    for t in range(8):
        logits, state = model.step(rows, data["caption_ids"][:, t], state)
        torch.testing.assert_close(logits[mask[:, t]], output.logits[places[:, t][mask[:, t]]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "settings", [DecodingSettings(max_tokens=8), DecodingSettings(beams=4, num_captions=2, max_tokens=8)]
)
def test_decoding_reports_the_teacher_forced_log_prob(variant, settings):
    model, data = tiny(variant).eval(), batch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    memory = model.encode(data)
    found = decode(model, memory, settings)
    count = settings.num_captions
    ids = torch.cat([torch.full((3 * count, 1), 1), found.token_ids.flatten(0, 1)], 1)
    lengths = found.lengths.flatten() + 1
    output = model(memory, ids, lengths, torch.arange(3).repeat_interleave(count))
    scores = output.logits.log_softmax(1).gather(1, output.targets[:, None])[:, 0]
    sums = torch.stack([part.sum() for part in scores.split(found.lengths.flatten().tolist())])
    torch.testing.assert_close(sums, found.log_prob.flatten(), rtol=1e-4, atol=1e-4)


def test_a_picture_is_encoded_once_however_many_captions_it_has(monkeypatch):
    model, data, seen = tiny().eval(), batch(), []
    original = model.encoder.feature_map
    monkeypatch.setattr(model.encoder, "feature_map", lambda image: seen.append(len(image)) or original(image))
    memory = model.encode(data)
    model(memory, data["caption_ids"], data["caption_lengths"], data["image_index"])
    decode(model, memory, DecodingSettings(beams=3, max_tokens=5))
    assert seen == [3]


def test_plain_values_rebuild_the_network():
    model, data = tiny("two_sided").eval(), batch()
    again = rebuilt(model, merging="two_sided")
    assert torch.equal(run(model, data).logits, run(again, data).logits)
    assert again.language.config_dict() == model.language.config_dict()


def test_gradient_checkpointing_changes_no_gradient_and_no_statistic():
    data, results = batch(), []
    for checkpointing in (False, True):
        model = tiny(dropout=0.2, gradient_checkpointing=checkpointing).train()
        torch.manual_seed(1)
        output = run(model, data)
        token_loss(output.logits, output.targets).backward()
        results.append({n: p.grad for n, p in model.named_parameters()} | dict(model.named_buffers()))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_gives_nearly_the_same_loss(variant):
    model, data = tiny(variant).train(), batch()
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = run(model, data)
            losses.append(token_loss(output.logits, output.targets))
        model.zero_grad()
        losses[-1].backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        found = decode(model.eval(), model.encode(data), DecodingSettings(beams=3, max_tokens=5))
    assert found.log_prob.isfinite().all()


def test_the_published_model_has_the_published_size():
    with torch.device("meta"):
        model = DualTransferCaptioner(vocab_size=50259, bos_id=50257, eos_id=50256, pad_id=50258)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.language, model.merging)]
    weights = (1768 + 768) * 384 + 2 * 768 * 256
    assert sizes == [19_341_616, 124_439_808 + 2 * 768, weights + 384 + 768 + 256 + 768]
    assert model.encoder.vector_dim == 1000
    assert model.encoder.grid_shape(380) == (12, 12)


def test_stored_features_are_read_in_the_place_of_pictures():
    data = batch()
    features = torch.randn(3, 4, 10)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    model = tiny(**FEATURES).eval()
    del data["image"]
    data |= {"features": features.half(), "feature_mask": mask}
    vector = model.encode(data)["image"]
    expected = torch.stack([rows[kept].mean(0) for rows, kept in zip(features, mask, strict=True)])
    torch.testing.assert_close(vector, expected, rtol=1e-3, atol=1e-3)
    again = rebuilt(model, **FEATURES)
    torch.testing.assert_close(run(again, data).logits, run(model, data).logits, rtol=0, atol=0)


def test_stored_features_may_be_pooled_in_another_way():
    data = batch()
    del data["image"]
    data["features"] = torch.randn(3, 4, 10)
    model = tiny(**FEATURES, pooling="covariance").eval()
    assert torch.equal(model.encode(data)["image"], model.pooling(data["features"]))
    again = rebuilt(model, **FEATURES, pooling="covariance")
    torch.testing.assert_close(run(again, data).logits, run(model, data).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"image_encoder": None}, "there is no image encoder"), ({"feature_dim": 10}, "has an encoder, too")],
)
def test_pictures_or_features_not_both_or_neither(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)


# words that look at regions


def looking(positions: bool = False, **changes) -> DualTransferCaptioner:
    model = tiny(**changes)
    model.add_region_attention(4, positions=positions)
    torch.nn.init.normal_(
        model.region_attention.merge.weight, std=0.5
    )  # it starts small, so that nothing could be seen
    return model.eval()


def stored() -> dict[str, torch.Tensor]:
    """Features of boxes, some of which are absent."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    data = {name: value for name, value in batch().items() if name != "image"}
    return data | {"features": torch.randn(3, 4, 10, generator=generator), "feature_mask": mask}


@pytest.mark.parametrize(("changes", "data"), [({}, batch()), (FEATURES, stored())], ids=["grid", "boxes"])
def test_a_step_sees_what_teacher_forcing_sees(changes, data):
    model = looking(**changes)
    memory = model.encode(data)
    output = run(model, data)
    first, state, rows = [], None, {name: value[data["image_index"]] for name, value in memory.items()}
    for place in range(3):
        logits, state = model.step(rows, data["caption_ids"][:, place], state)
        first.append(logits)
    mask = target_mask(data["caption_lengths"], 9)
    whole = output.logits.new_zeros(*mask.shape, 20).masked_scatter(mask.unsqueeze(2), output.logits)
    for place, logits in enumerate(first):
        real = mask[:, place]
        torch.testing.assert_close(logits[real], whole[:, place][real], atol=1e-5, rtol=1e-4)


def test_absent_boxes_and_their_order_do_not_matter():
    model, data = looking(**FEATURES), stored()
    output = run(model, data).logits
    noisy = data["features"].masked_fill(~data["feature_mask"].unsqueeze(2), torch.nan)
    torch.testing.assert_close(run(model, {**data, "features": noisy}).logits, output)
    order = torch.tensor([3, 1, 0, 2])
    turned = {**data, "features": data["features"][:, order], "feature_mask": data["feature_mask"][:, order]}
    torch.testing.assert_close(run(model, turned).logits, output, atol=1e-5, rtol=1e-4)
    one, other = data["features"].clone(), run(model, data).logits
    one[0, 3] += 1.0
    assert not torch.allclose(run(model, {**data, "features": one}).logits, other)


def test_places_of_a_grid_matter_only_when_they_are_told():
    data = batch()
    told, untold = (looking(flag) for flag in (True, False))
    for model, differs in ((told, True), (untold, False)):
        found = model.encoder.feature_map(data["image"])
        turned = found.flip(3)
        keys = [model.region_attention.keys_values(grid.flatten(2).transpose(1, 2), None) for grid in (found, turned)]
        hidden = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(2))
        one, other = (model.region_attention(hidden, key, None) for key in keys)
        assert torch.allclose(one, other, atol=1e-5) != differs


def test_attention_sums_to_one_and_is_zero_where_a_box_is_absent():
    model, data = looking(**FEATURES), stored()
    assert model.attends
    assert not tiny().attends
    captions = data["caption_ids"], data["caption_lengths"], data["image_index"]
    maps = model.attention_maps(model.encode(data), *captions)
    real = target_mask(data["caption_lengths"], 9)
    torch.testing.assert_close(maps.sum(2), real.float())
    absent = ~data["feature_mask"][data["image_index"]].unsqueeze(1).expand_as(maps)
    assert not maps[absent].any()


def test_looking_hardly_changes_the_predictions_at_first():
    data = batch()
    plain, seeing = tiny().eval(), tiny()
    seeing.add_region_attention(4)
    seeing.eval()
    missing = seeing.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith("region_attention.") for name in missing)
    assert (run(plain, data).logits - run(seeing, data).logits).abs().max() < 0.2
