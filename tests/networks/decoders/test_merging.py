import pytest
import torch
from torch.nn.functional import layer_norm, relu

from core.errors import UserError
from networks.decoders.merging import MLPMerging, StepBatchNorm, TwoSidedMerging, build_merging
from networks.layers.sequences import select_rows

VARIANTS = ["mlp", "layer_norm", "batch_norm", "gru", "gru_published", "two_sided"]


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 2, 5, 1, 3])
    return torch.randn(5, 7, generator=generator), torch.randn(5, 5, 6, generator=generator), lengths


def network(variant: str, scale: float = 5.0):
    torch.manual_seed(0)
    merging = build_merging(variant, image_dim=7, hidden_dim=6, first_dim=8, second_dim=4, output_dim=9, max_steps=5)
    with torch.no_grad():
        for parameter in merging.parameters():
            parameter.mul_(scale).add_(0.1 * torch.randn_like(parameter))
    return merging


def real(lengths: torch.Tensor) -> torch.Tensor:
    return torch.arange(5) < lengths[:, None]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_finite_and_trains(variant):
    merging = network(variant).train()
    image, hidden, lengths = inputs()
    merged = merging(image, hidden, lengths)
    assert merged.shape == hidden.shape
    assert merged.isfinite().all()
    merged[real(lengths)].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in merging.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_and_the_future_do_not_matter(variant):
    merging = network(variant).train()
    image, hidden, lengths = inputs()
    mask = real(lengths)
    merged = merging(image, hidden, lengths)[mask]
    other = hidden.where(mask[..., None], 100.0)
    torch.testing.assert_close(merging(image, other, lengths)[mask], merged)
    if variant == "batch_norm":
        merging.eval()
    changed = hidden.clone()
    changed[:, 3:] = 9
    before = [merging(image, h, lengths)[:, :3][mask[:, :3]] for h in (hidden, changed)]
    torch.testing.assert_close(*before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_are_the_parallel_pass_even_when_rows_move(variant):
    merging = network(variant).train()
    image, hidden, lengths = inputs()
    for _ in range(3):
        merging(image, hidden, lengths)  # running statistics of its own for each time step
    merging.eval()
    expected = merging(image, hidden, torch.full((5,), 5))
    state, order = None, torch.arange(5)
    for t in range(5):
        merged, state = merging.step(image[order], hidden[order, t], state)
        torch.testing.assert_close(merged, expected[order, t])
        assert all(tensor.shape[0] == len(order) for tensor in state.values())
        if t == 1:
            order = torch.tensor([3, 3, 0])
            state = select_rows(state, order)


@pytest.mark.parametrize("variant", VARIANTS)
def test_at_first_the_language_tower_speaks_almost_as_before(variant):
    torch.manual_seed(0)
    merging = build_merging(variant, image_dim=100, hidden_dim=60).eval()
    image, hidden = torch.randn(4, 100), torch.randn(4, 3, 60)
    change = merging(image, hidden, torch.tensor([3, 3, 3, 3])) - hidden
    assert 0 < change.norm() < 0.5 * hidden.norm()


def test_published_network_is_the_formula():
    merging = network("mlp")
    image, hidden, lengths = inputs()
    v = image[:, None].expand(-1, 5, -1)
    z = relu(merging.first(torch.cat([v, hidden], 2)))
    m = merging.first_back(z) + hidden
    o = merging.second_back(relu(merging.second(m))) + m
    torch.testing.assert_close(merging(image, hidden, lengths)[real(lengths)], o[real(lengths)])
    full = MLPMerging(image_dim=1000, hidden_dim=768)
    assert [tuple(layer.weight.shape) for layer in (full.first, full.first_back, full.second, full.second_back)] == [
        (384, 1768), (768, 384), (256, 768), (768, 256)
    ]  # fmt: skip
    # Xavier normal with gain 0.1
    assert full.first.weight.std().item() == pytest.approx(0.1 * (2 / (384 + 1768)) ** 0.5, rel=0.02)


def test_published_gru_is_one_stage_from_small_weights():
    merging = network("gru_published")
    image, hidden, lengths = inputs()
    v = image[:, None].expand(-1, 5, -1)
    expected = merging.first_back(merging.first(torch.cat([v, hidden], 2))[0]) + hidden
    torch.testing.assert_close(merging(image, hidden, lengths)[real(lengths)], expected[real(lengths)])
    full = build_merging("gru_published", image_dim=1000, hidden_dim=768)
    shapes = {name: tuple(value.shape) for name, value in full.named_parameters() if value.dim() == 2}
    assert shapes == {
        "first.weight_ih_l0": (3 * 384, 1768),
        "first.weight_hh_l0": (3 * 384, 384),
        "first.weight_ih_l1": (3 * 384, 384),
        "first.weight_hh_l1": (3 * 384, 384),
        "first_back.weight": (768, 384),
    }
    for name, (outputs, width) in shapes.items():  # Xavier normal with gain 0.1
        expected_std = 0.1 * (2 / (outputs + width)) ** 0.5
        assert full.get_parameter(name).std().item() == pytest.approx(expected_std, rel=0.02), name


def test_two_sided_network_joins_the_updated_sides():
    merging = network("two_sided")
    image, hidden, lengths = inputs()
    v = image[:, None].expand(-1, 5, -1)
    both = torch.cat([v, hidden], 2)

    def norm(index: int, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], merging.norms[index].weight, merging.norms[index].bias)

    a = merging.image_back(relu(norm(0, merging.image_side(both)))) + v
    b = merging.hidden_back(relu(norm(1, merging.hidden_side(both)))) + hidden
    o = merging.output_back(relu(norm(2, merging.output(torch.cat([a, b], 2))))) + hidden
    torch.testing.assert_close(merging(image, hidden, lengths)[real(lengths)], o[real(lengths)])
    assert TwoSidedMerging(image_dim=1000, hidden_dim=768).output.weight.shape == (512, 1768)


def test_step_batch_norm_is_a_batch_norm_for_each_time_step():
    norm = StepBatchNorm(num_features=6, max_steps=5).train()
    oracles = [torch.nn.BatchNorm1d(6) for _ in range(5)]
    _, hidden, lengths = inputs()
    caption, time = real(lengths).nonzero(as_tuple=True)
    for _ in range(2):
        values = hidden[caption, time]
        found = norm(values, time)
        for t in range(5):
            torch.testing.assert_close(found[time == t], oracles[t](values[time == t]))
    # the running statistics are means of the batches so far
    for t in range(5):
        torch.testing.assert_close(norm.mean[t], values[time == t].mean(0))
        torch.testing.assert_close(norm.variance[t], values[time == t].var(0))
    norm.eval()
    expected = (values - norm.mean[time]) / (norm.variance[time] + 1e-5).sqrt()
    torch.testing.assert_close(norm(values, time), expected)


def test_step_batch_norm_with_few_captions_falls_back_on_what_it_knows():
    norm = StepBatchNorm(num_features=2, max_steps=4).train()
    values, time = torch.randn(5, 2), torch.tensor([0, 0, 1, 1, 2])
    norm(values, time)
    assert norm.batches.tolist() == [1, 1, 0, 0]
    norm.eval()
    same = torch.randn(1, 2).expand(4, 2)
    found = norm(same, torch.tensor([1, 2, 3, 50]))  # unseen and too late steps take the last known statistics
    assert (found == found[0]).all()
    assert norm.train()(same[:1], torch.tensor([3])).isfinite().all()


def test_unknown_variant_is_named():
    with pytest.raises(UserError, match="merging 'sum' is unknown; choose mlp"):
        build_merging("sum", image_dim=7, hidden_dim=6)
