"""The gradient of what the hooks count, against finite differences in float64."""

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_metrics.hooks import register_synops_hooks

NETS = {
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.ConvTranspose2d(2, 2, 2, stride=2),
            nn.Flatten(),
            nn.Linear(32, 3),
        ),
        (2, 1, 4, 4),
        {},
    ),
    "linear over positions": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (2, 3, 3), {}),
    "linear over time": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        (2, 5, 3),
        {"time_axis": 1},
    ),
    "a readout over time": (
        lambda: snn.Sequential(snn.Constant(3), nn.Linear(3, 4), snn.LI(), nn.Linear(4, 2), snn.LI()),
        (2, 3),
        {"dt_s": 0.5},
    ),
    "one to one": (lambda: snn.Recurrent(snn.LI(), snn.OneToOne(3)), (4, 2, 3), {}),
}


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_is_that_of_finite_differences(name):
    torch.manual_seed(0)
    make, shape, settings = NETS[name]
    net = make().double()
    register_synops_hooks(net, **settings)

    def total(x):
        net(x)
        return net.hook_data["total_synops_per_second" if "dt_s" in settings else "total_synops_per_timestep"]

    x = torch.randn(shape, dtype=torch.float64)
    x = (x + x.sign()).requires_grad_()  # away from 0, where |x| has no derivative
    assert torch.autograd.gradcheck(total, (x,))


def test_every_layers_value_has_the_gradient_of_its_own_input_alone():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    register_synops_hooks(net)
    net(torch.rand(2, 3))
    weights = [net[0].weight, net[2].weight]
    found = torch.autograd.grad(net.hook_data["synops_per_timestep"]["2"], weights, allow_unused=True)
    assert found[0].abs().sum() > 0
    assert found[1] is None


def test_a_penalty_lowers_the_operations_of_a_network_in_training():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), snn.NeuromorphicReLU(), nn.Linear(16, 2))
    register_synops_hooks(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x = torch.rand(32, 8) * 4
    counts = []
    for _ in range(30):
        optimizer.zero_grad()
        net(x)
        counts.append(net.hook_data["synops_per_timestep"]["2"].item())
        net.hook_data["total_synops_per_timestep"].backward()
        optimizer.step()
    assert counts[-1] < counts[0] / 2
