"""Our synops hooks against sinabs' on what sinabs' own brute force confirms, and its tutorial's loop with ours.

What is left out is where sinabs is wrong or refuses: docs/synops.md lists it, and snn-metrics' own tests cover it.
"""

import copy

import pytest
import sinabs.hooks as peer_hooks
import sinabs.layers as peers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from snn_core.presets import sinabs as presets
from snn_metrics import hooks

TOTAL, EACH = "total_synops_per_timestep", "synops_per_timestep"
examples = settings(max_examples=80, deadline=None, derandomize=True, database=None)


@st.composite
def networks(draw):
    """Convolutions and average pools in any order, each of them after a ReLU, then linear layers; and an input."""
    size, channels = draw(st.integers(12, 16)), draw(st.sampled_from([1, 2, 4]))
    x = torch.rand(draw(st.integers(1, 4)), channels, size, size, dtype=torch.float64)
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride, dilation, padding = (draw(st.integers(low, 2)) for low in (1, 1, 1, 0))
        out = draw(st.sampled_from([2, 4]))
        groups = draw(st.sampled_from([1, channels])) if out % channels == 0 else 1
        layers += [nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups), nn.ReLU()]
        channels = out
        if nn.Sequential(*layers).double()(x).shape[-1] > 3:
            # sinabs counts a pool right whose stride is its size
            layers += [nn.AvgPool2d(2)] * draw(st.integers(0, 1))
    net = nn.Sequential(*layers, nn.Flatten()).double()
    features = net(x).shape[1]
    net = nn.Sequential(*net, nn.Linear(features, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    return net, x


def values_and_gradients(net, x):
    """The values in the order of the layers with their total, and the gradient of each with respect to the input."""
    leaf = x.clone().requires_grad_()
    net(leaf)
    values = [*net.hook_data[EACH].values(), net.hook_data[TOTAL]]
    gradients = [torch.autograd.grad(v, leaf, retain_graph=True, allow_unused=True)[0] for v in values]
    return values, gradients


@examples
@given(networks())
def test_values_and_gradients_are_those_of_sinabs(case):
    mine, x = case
    theirs = copy.deepcopy(mine)
    hooks.register_synops_hooks(mine, 0.01)
    peer_hooks.register_synops_hooks(theirs, 0.01)
    found, expected = values_and_gradients(mine, x), values_and_gradients(theirs, x)
    # float64 sums in another order
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for key in ("total_synops_per_second", "synops_per_second"):
        a, b = mine.hook_data[key], theirs.hook_data[key]
        a, b = (list(v.values()) if isinstance(v, dict) else [v] for v in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    for name, layer in mine.named_children():
        if name in mine.hook_data[EACH]:
            torch.testing.assert_close(layer.hook_data[EACH], theirs[int(name)].hook_data[EACH], rtol=1e-10, atol=1e-10)


def tutorial_network(layers, pool):
    """The network of the tutorial "Training an ANN with fewer SynOps"."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, bias=False),
        layers.NeuromorphicReLU(),
        pool(2),
        nn.Conv2d(16, 32, 5, bias=False),
        layers.NeuromorphicReLU(),
        pool(2),
        nn.Conv2d(32, 120, 4, bias=False),
        layers.NeuromorphicReLU(),
        nn.Flatten(),
        nn.Linear(120, 10, bias=False),
    )


def trained(net, register_synops_hooks, steps=4):
    """Losses and counts of some steps of the tutorial's loop, in float64: a spike more or less is no rounding."""
    net = net.double()
    register_synops_hooks(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    history = []
    for _ in range(steps):
        data, labels = torch.rand(8, 1, 28, 28, generator=generator).double() * 8, torch.arange(8)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(data), labels)
        synops = net.hook_data["total_synops_per_timestep"]
        penalty = F.mse_loss(synops, torch.tensor(5e5).double()) / 1e11
        (loss + penalty).backward()
        optimizer.step()
        each = [value.item() for value in net.hook_data["synops_per_timestep"].values()]
        history.append([loss.item(), penalty.item(), synops.item(), *each])
    return history


@pytest.mark.parametrize("pool", ["SumPool2d", "AvgPool2d"])
def test_the_tutorials_loop_trains_alike_with_only_its_import_of_the_hooks_changed(pool):
    torch.manual_seed(0)
    theirs = tutorial_network(peers, getattr(peers, pool, None) or getattr(nn, pool))
    mine = copy.deepcopy(theirs)
    expected = trained(theirs, peer_hooks.register_synops_hooks)
    assert expected[0][2] > expected[-1][2]  # it learns to save
    found = trained(mine, hooks.register_synops_hooks)
    assert found == [pytest.approx(step, rel=1e-9) for step in expected]


def test_the_tutorials_loop_trains_alike_with_all_its_imports_changed():
    torch.manual_seed(0)
    # with average pools: sinabs' sum pool passes no gradient into a silent window, and ours does
    theirs = tutorial_network(peers, nn.AvgPool2d)
    mine = tutorial_network(presets, nn.AvgPool2d)
    mine.load_state_dict(theirs.state_dict())
    expected = trained(theirs, peer_hooks.register_synops_hooks)
    found = trained(mine, hooks.register_synops_hooks)
    assert found == [pytest.approx(step, rel=1e-9) for step in expected]


def test_the_tutorials_own_network_counts_alike_with_all_its_imports_changed():
    torch.manual_seed(0)
    theirs = tutorial_network(peers, peers.SumPool2d)
    mine = tutorial_network(presets, presets.SumPool2d)
    mine.load_state_dict(theirs.state_dict())
    expected = trained(theirs, peer_hooks.register_synops_hooks, steps=1)
    assert trained(mine, hooks.register_synops_hooks, steps=1) == [pytest.approx(expected[0], rel=1e-9)]
