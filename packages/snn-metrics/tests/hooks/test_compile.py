"""A hooked module compiled whole, without a break in its graph, counts what it counts eagerly, with the same gradient.

conftest.py leaves this file out for a torch before 2.6, which cannot compile hooks.
"""

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_metrics.hooks import register_synops_hooks

pytestmark = pytest.mark.slow

TOTAL, EACH, SECOND = "total_synops_per_timestep", "synops_per_timestep", "total_synops_per_second"
BACKENDS = ["eager", "aot_eager"]


def convolutions():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", padding_mode="circular"),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Sequential(nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 3, stride=2, groups=1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(3 * 9 * 9, 5),
    )
    return net, torch.rand(3, 1, 8, 8), {"dt_s": 0.01}


def over_time():
    net = snn.Sequential(
        snn.Constant(3),
        nn.Conv2d(1, 2, 3),
        snn.LIF(),
        nn.Flatten(),
        nn.Linear(72, 6),
        snn.Recurrent(snn.LIF(), nn.Linear(6, 6)),
        snn.Recurrent(snn.LIF(), snn.OneToOne(6)),
    )
    return net, torch.rand(3, 1, 8, 8) * 5, {"dt_s": 0.01}


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return torch.stack([self.fc(x_t) for x_t in x])


def loop():
    return Loop(), torch.rand(3, 2, 4), {"dt_s": 0.01, "time_axis": 0}


def result(run, net, x):
    """All values of one forward and the gradient of their total with the output's sum."""
    leaf = x.clone().requires_grad_()
    net.zero_grad()
    out = run(leaf)
    data = net.hook_data
    values = {**data[EACH], TOTAL: data[TOTAL], SECOND: data[SECOND]}
    (out.sum() + data[TOTAL]).backward()
    gradients = [leaf.grad, *(p.grad for p in net.parameters() if p.grad is not None)]
    return {name: value.detach() for name, value in values.items()}, gradients


@pytest.fixture
def seeded():
    torch.manual_seed(0)
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [convolutions, over_time, loop])
def test_a_compiled_module_counts_what_it_counts_eagerly(make, backend, seeded):
    net, x, settings = make()
    register_synops_hooks(net, **settings)
    expected = result(net, net, x)
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    for _ in range(2):
        values, gradients = result(compiled, net, x)
        # the same operations in the same order, but for sums that a compiler may group differently
        torch.testing.assert_close(values, expected[0])
        torch.testing.assert_close(gradients, expected[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_module_counts_batches_of_other_sizes(backend, seeded):
    net, x, settings = convolutions()
    net.eval()
    register_synops_hooks(net, **settings)
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    for batch in (x, x[:2], torch.cat((x, x))):
        net(batch)
        expected = net.hook_data[TOTAL].detach()
        compiled(batch)
        torch.testing.assert_close(net.hook_data[TOTAL].detach(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_penalty_inside_the_compiled_step_has_the_eager_gradient(backend, seeded):
    net, x, settings = convolutions()
    net.eval()
    register_synops_hooks(net, **settings)

    def loss(x):
        return net(x).square().mean() + torch.log(net.hook_data[TOTAL])

    expected = torch.autograd.grad(loss(x), list(net.parameters()))
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend=backend)(x), list(net.parameters()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_step_leaves_no_graph_behind(backend, seeded):
    net, x, settings = convolutions()
    register_synops_hooks(net, **settings)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    torch.compile(net, fullgraph=True, backend=backend)(x).sum().backward()
    optimizer.step()
    assert not net.hook_data[TOTAL].requires_grad
