"""Units without a gradient are found in the optimiser's state."""

import torch
from torch import nn

from networks.layers.health import dead_units


def trained(kill, steps=30, words=None):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    kill(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(32, 4)).square().mean().backward()
        optimizer.step()
    return dead_units(network, optimizer.state)


def test_relus_that_never_fire_are_counted():
    def kill(network):
        network[0].bias.data[:12] = -100.0

    assert trained(kill) == {"0": (12, 16)}


def test_a_layer_that_nothing_reaches_is_dead_as_a_whole():
    def kill(network):
        network[2].weight.data.zero_()
        network[2].weight.requires_grad_(False)

    assert trained(kill) == {"0": (16, 16)}


def test_healthy_layers_and_rare_words_are_not_named():
    assert trained(lambda network: None) == {}
    words = nn.Embedding(100, 4)
    optimizer = torch.optim.Adam(words.parameters())
    words(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    assert dead_units(words, optimizer.state) == {}


def test_optimisers_without_a_mean_gradient_say_nothing():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert dead_units(layer, optimizer.state) == {}
