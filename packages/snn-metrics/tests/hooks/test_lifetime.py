"""Nothing that a forward made outlives its training step through the hooks, and what was measured stays readable."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks
from torch.utils.checkpoint import checkpoint

from snn_metrics import hook_data
from snn_metrics.hooks import register_synops_hooks

TOTAL, EACH = "total_synops_per_timestep", "synops_per_timestep"


class Kept:
    """What autograd saved of one tensor for a backward; it dies when autograd lets go of it."""

    def __init__(self, tensor):
        self.tensor = tensor


class Watched:
    """A network, and weak references to all that autograd saved in its last forward."""

    def __init__(self):
        self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.saved = []

    def forward(self):
        self.saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept.tensor):
            return self.net(torch.rand(3, 4))

    def _keep(self, tensor):
        kept = Kept(tensor.detach())
        self.saved.append(weakref.ref(kept))
        return kept

    def alive(self):
        gc.collect()
        return sum(reference() is not None for reference in self.saved)

    def step(self, weight=None, optimizer=None):
        """One training step; the penalty has no part in the loss where its weight is None."""
        loss = self.forward().square().mean()
        if weight is not None:
            loss = loss + weight * self.net.hook_data[TOTAL]
        loss.backward()
        (optimizer or self.optimizer).step()


@pytest.fixture
def watched():
    return Watched()


@pytest.mark.parametrize("weight", [None, 1e-3], ids=["only measured", "in the loss"])
def test_no_activation_is_alive_after_a_training_step(watched, weight):
    register_synops_hooks(watched.net, dt_s=0.1)
    for _ in range(2):
        watched.step(weight)
        assert watched.alive() == 0


def test_a_graph_that_nothing_used_is_kept_until_the_optimizer_steps(watched):
    register_synops_hooks(watched.net)
    watched.forward().square().mean().backward(retain_graph=True)
    assert watched.alive() > 0
    before = [parameter.grad.clone() for parameter in watched.net.parameters()]
    # a second backward may still come
    watched.net.hook_data[TOTAL].backward()
    assert any(not torch.equal(p.grad, b) for p, b in zip(watched.net.parameters(), before))
    watched.optimizer.step()
    assert watched.alive() == 0


def test_values_stay_readable_after_the_step(watched):
    register_synops_hooks(watched.net, dt_s=0.5)
    watched.net(torch.rand(3, 4)).sum().backward()
    before = copy.deepcopy(watched.net.hook_data)
    watched.optimizer.step()
    after = watched.net.hook_data
    assert after[TOTAL].item() == before[TOTAL].item()
    assert after[EACH].keys() == before[EACH].keys()
    assert all(after["synops_per_second"][name].item() == value.item() * 2 for name, value in before[EACH].items())
    assert not any(value.requires_grad for value in (after[TOTAL], *after[EACH].values()))
    assert not any(watched.net[i].hook_data[EACH].requires_grad for i in (0, 2, 4))


def test_another_models_optimizer_lets_go_of_nothing(watched):
    register_synops_hooks(watched.net)
    other = nn.Linear(2, 2)
    other(torch.rand(1, 2)).sum().backward()
    watched.step(optimizer=torch.optim.SGD(other.parameters(), lr=0.1))
    assert watched.net.hook_data[TOTAL].requires_grad
    assert watched.alive() > 0


def test_the_next_forward_lets_go_of_what_the_last_one_saved(watched):
    register_synops_hooks(watched.net)
    watched.forward()
    first = list(watched.saved)
    assert any(reference() is not None for reference in first)
    watched.forward()
    gc.collect()
    assert not any(reference() is not None for reference in first)


def test_nothing_is_kept_of_a_forward_without_a_graph(watched):
    register_synops_hooks(watched.net)
    with torch.no_grad():
        watched.forward()
    assert watched.alive() == 0
    assert not watched.net.hook_data[TOTAL].requires_grad


@pytest.mark.parametrize("counted_first", [False, True])
def test_a_copys_graphs_end_with_its_own_optimizers_step(watched, counted_first):
    register_synops_hooks(watched.net)
    if counted_first:
        watched.forward()
    watched.net = copy.deepcopy(watched.net)
    optimizer = torch.optim.SGD(watched.net.parameters(), lr=0.1)
    watched.forward().sum().backward()
    assert watched.alive() > 0
    optimizer.step()
    assert watched.alive() == 0


def test_a_module_dies_with_its_last_reference_although_it_is_hooked():
    net = nn.Sequential(nn.Linear(4, 2))
    register_synops_hooks(net)
    net(torch.rand(1, 4)).sum().backward()
    reference = weakref.ref(net)
    del net
    gc.collect()
    assert reference() is None


def test_a_part_that_is_run_again_in_the_backward_counts_once_and_keeps_its_gradient():
    class Checkpointed(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.again = again
            self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU())
            self.head = nn.Linear(5, 2)

        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=False) if self.again else self.body(x))

    values, gradients = [], []
    for again in (False, True):
        torch.manual_seed(0)
        net = Checkpointed(again)
        register_synops_hooks(net, dt_s=0.1)
        out = net(torch.rand(3, 4))
        (out.sum() + net.hook_data["total_synops_per_second"]).backward()
        values.append(net.hook_data[TOTAL].item())
        gradients.append([parameter.grad for parameter in net.parameters() if parameter.grad is not None])
    assert values[0] == values[1]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_without_a_hooked_module_no_optimizer_is_listened_to():
    for module in list(hook_data._watched):  # what other tests have left
        hook_data.forget(module)
    listened = dict(_global_optimizer_post_hooks)
    handle = register_synops_hooks(nn.Linear(4, 2))
    assert len(_global_optimizer_post_hooks) == len(listened) + 1
    handle.remove()
    assert _global_optimizer_post_hooks == listened
