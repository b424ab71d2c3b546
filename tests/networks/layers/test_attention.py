import math

import pytest
import torch

from core.errors import UserError
from networks.layers.attention import AttentionName, build_attention, masked_softmax
from networks.layers.positions import sinusoidal_grid, square_side

NAMES: list[AttentionName] = ["uniform", "bahdanau", "dot", "multi_head"]
B, R, E, H, A = 3, 5, 8, 6, 4


def example(name: AttentionName, **options):
    attention = build_attention(name, region_dim=E, hidden_dim=H, attention_dim=A, heads=2, **options)
    features, state = torch.randn(B, R, E), torch.randn(B, H)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.bool)
    return attention, features, state, mask


@pytest.mark.parametrize("name", NAMES)
def test_weights_sum_to_one_and_are_zero_where_masked(name):
    attention, features, state, mask = example(name)
    context, weights = attention(features, state, mask)
    assert context.shape == (B, E)
    assert weights.shape == (B, R)
    torch.testing.assert_close(weights.sum(1), torch.ones(B))
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()
    # a single real region is all there is to see
    torch.testing.assert_close(context[2], features[2, 3])


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_region_has_no_influence_and_no_gradient(name):
    attention, features, state, mask = example(name)
    changed = torch.where(mask.unsqueeze(2), features, 100 * torch.randn_like(features)).requires_grad_()
    context, weights = attention(changed, state, mask)
    for found, expected in zip((context, weights), attention(features, state, mask), strict=True):
        torch.testing.assert_close(found, expected)
    (context.square().sum() + weights.square().sum()).backward()
    assert (changed.grad[~mask] == 0).all()
    assert (changed.grad[mask] != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_regions_does_not_matter(name):
    attention, features, state, mask = example(name)
    order = torch.randperm(R)
    context, weights = attention(features, state, mask)
    moved_context, moved_weights = attention(features[:, order], state, mask[:, order])
    torch.testing.assert_close(moved_context, context)
    torch.testing.assert_close(moved_weights, weights[:, order])


@pytest.mark.parametrize("name", ["bahdanau", "dot"])
def test_the_context_is_the_weighted_mean(name):
    attention, features, state, _ = example(name)
    context, weights = attention(features, state)
    torch.testing.assert_close(context, (weights.unsqueeze(2) * features).sum(1))


@pytest.mark.parametrize("name", NAMES)
def test_keys_prepared_once_give_the_same(name):
    attention, features, state, mask = example(name)
    keys = attention.keys(features)
    for _ in range(2):
        for found, expected in zip(
            attention.attend(features, keys, state, mask), attention(features, state, mask), strict=True
        ):
            assert torch.equal(found, expected)


def test_uniform_is_the_mean():
    attention, features, state, mask = example("uniform")
    context, weights = attention(features, state)
    torch.testing.assert_close(context, features.mean(1))
    torch.testing.assert_close(weights, torch.full((B, R), 1 / R))
    torch.testing.assert_close(attention(features, state, mask)[0][1], features[1, [0, 2, 4]].mean(0))
    assert not list(attention.parameters())


def softmax_by_hand(scores: list[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def matrix(values: torch.Tensor) -> list[list[float]]:
    return values.detach().double().tolist()


def times(rows: list[list[float]], vector: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in rows]


def test_bahdanau_by_hand():
    """alpha_j = W tanh(U s + V x_j + b) + c in plain Python, with a c, which changes nothing."""
    attention, features, state, _ = example("bahdanau")
    u, v, w = matrix(attention.U.weight), matrix(attention.V.weight), matrix(attention.W.weight)[0]
    b, c = attention.V.bias.tolist(), 3.7
    for row in range(B):
        us = times(u, state[row].tolist())
        scores = []
        for region in features[row].tolist():
            inner = [math.tanh(p + q + r) for p, q, r in zip(us, times(v, region), b, strict=True)]
            scores.append(sum(p * q for p, q in zip(w, inner, strict=True)) + c)
        weights = softmax_by_hand(scores)
        context, found = attention(features[row : row + 1], state[row : row + 1])
        torch.testing.assert_close(found[0], torch.tensor(weights))
        torch.testing.assert_close(context[0], torch.tensor(times(matrix(features[row].t()), weights)))


@pytest.mark.parametrize(("bias", "scaled"), [(False, False), (True, False), (False, True)])
def test_dot_by_hand(bias, scaled):
    """alpha_j = (Q s + q)^T (K x_j + k) in plain Python, with a k, which changes nothing."""
    attention, features, state, _ = example("dot", bias=bias, scaled=scaled)
    q, k = matrix(attention.Q.weight), matrix(attention.K.weight)
    query_bias = attention.Q.bias.tolist() if bias else [0.0] * A
    key_bias = [0.5, -1.0, 2.0, 0.1]
    for row in range(B):
        query = [x + y for x, y in zip(times(q, state[row].tolist()), query_bias, strict=True)]
        scores = []
        for region in features[row].tolist():
            key = [x + y for x, y in zip(times(k, region), key_bias, strict=True)]
            scores.append(sum(x * y for x, y in zip(query, key, strict=True)) / (2 if scaled else 1))  # sqrt(A) = 2
        found = attention(features[row : row + 1], state[row : row + 1])[1]
        torch.testing.assert_close(found[0], torch.tensor(softmax_by_hand(scores)))


def test_dot_on_two_regions():
    attention = build_attention("dot", region_dim=2, hidden_dim=2, attention_dim=2)
    with torch.no_grad():
        attention.Q.weight.copy_(torch.eye(2))
        attention.K.weight.copy_(torch.eye(2))
    context, weights = attention(torch.eye(2).unsqueeze(0), torch.tensor([[math.log(3), 0.0]]))
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(context, torch.tensor([[0.75, 0.25]]))


def test_multi_head_is_scaled_dot_products_side_by_side():
    """Against PyTorch's own scaled dot product; one head is the scaled dot product of ours."""
    attention, features, state, mask = example("multi_head")
    query = attention.Q(state).view(B, 2, 1, A // 2)
    keys = attention.K(features).view(B, R, 2, A // 2).transpose(1, 2)
    values = features.view(B, R, 2, E // 2).transpose(1, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values, mask[:, None, None])
    torch.testing.assert_close(attention(features, state, mask)[0], expected.flatten(1))
    single, dot = (
        build_attention("multi_head", region_dim=E, hidden_dim=H, attention_dim=A, heads=1),
        build_attention("dot", region_dim=E, hidden_dim=H, attention_dim=A, scaled=True),
    )
    dot.load_state_dict(single.state_dict())
    for found, wanted in zip(single(features, state, mask), dot(features, state, mask), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name):
    attention, features, state, mask = example(name, bias=True)
    context, _ = attention(features, state, mask)
    if name != "uniform":
        context.square().sum().backward()
    for key, parameter in attention.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, key


def test_softmax_without_mask_is_softmax():
    scores = torch.randn(2, 4)
    assert torch.equal(masked_softmax(scores, None), scores.softmax(1))


def test_wrong_settings_say_what_to_do():
    with pytest.raises(UserError, match="attention 'additive' is unknown; choose uniform, bahdanau, dot or multi_head"):
        build_attention("additive", region_dim=E, hidden_dim=H)
    with pytest.raises(UserError, match="region_dim=8 is not divisible by heads=3"):
        build_attention("multi_head", region_dim=E, hidden_dim=H, attention_dim=6, heads=3)
    with pytest.raises(UserError, match="width=6 of a 2-D positional encoding is not a multiple of 4"):
        sinusoidal_grid(2, 2, 6)
    with pytest.raises(UserError, match="50 regions are not a square grid"):
        square_side(50)


def test_positions_are_all_different_and_tell_row_from_column():
    places = sinusoidal_grid(7, 7, 32)
    distances = torch.cdist(places, places) + 10 * torch.eye(49)
    assert distances.min() > 0.1
    grid = places.view(7, 7, 32)
    assert torch.equal(grid[2, 1, :16], grid[2, 5, :16])  # same row
    assert torch.equal(grid[1, 3, 16:], grid[6, 3, 16:])  # same column
    torch.testing.assert_close(grid[4, 0, 0], torch.tensor(4.0).sin())
