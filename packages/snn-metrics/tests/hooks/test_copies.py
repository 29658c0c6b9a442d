"""Hooked modules are copied and pickled like others, before and after a forward, and each copy counts for itself."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_metrics.hooks import SynOpsHandle, register_synops_hooks

TOTAL, EACH = "total_synops_per_timestep", "synops_per_timestep"


def saved_and_loaded(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    # a whole module is pickled code, which torch loads only when told to
    return torch.load(buffer, weights_only=False)


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": saved_and_loaded,
}


def plain():
    return nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 2))), torch.rand(3, 4)


def over_time():
    connection = snn.Recurrent(snn.LIF(), snn.OneToOne(6))
    net = snn.Sequential(snn.Constant(3), nn.Linear(4, 6), connection, snn.Sequential(nn.Linear(6, 2), snn.LIF()))
    return net, torch.rand(3, 4) * 5


@pytest.mark.parametrize("make", [plain, over_time])
@pytest.mark.parametrize("forward_first", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_counts_for_itself(way, forward_first, make):
    net, x = make()
    register_synops_hooks(net, dt_s=0.1)
    if forward_first:
        net(x)
    other = WAYS[way](net)
    if forward_first:
        assert other.hook_data[TOTAL].item() == net.hook_data[TOTAL].item()
        assert not other.hook_data[TOTAL].requires_grad
    net(x)
    expected = {name: value.item() for name, value in net.hook_data[EACH].items()}
    net(x * 0)
    other(x)
    assert {name: value.item() for name, value in other.hook_data[EACH].items()} == expected
    assert net.hook_data[TOTAL].item() < other.hook_data[TOTAL].item()
    assert other.hook_data[TOTAL].requires_grad


def test_a_shallow_copy_shares_layers_and_what_they_counted():
    net, x = plain()
    register_synops_hooks(net)
    other = copy.copy(net)
    other(x)
    assert other.hook_data[TOTAL].item() == net.hook_data[TOTAL].item()


@pytest.mark.parametrize("way", WAYS)
def test_a_copys_hooks_are_removed_by_a_handle_of_its_own(way):
    net, x = over_time()
    handle = register_synops_hooks(net)
    other = WAYS[way](net)
    SynOpsHandle(other).remove()
    other(x)
    assert not any(hasattr(module, "hook_data") for module in other.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in other.modules())
    net(x)
    assert net.hook_data[TOTAL].item() > 0
    handle.remove()
    register_synops_hooks(other)


def test_a_layer_taken_out_of_a_hooked_module_works_alone():
    net, x = plain()
    register_synops_hooks(net)
    net(x)
    layer = copy.deepcopy(net[0])
    assert torch.equal(layer(x), net[0](x))


def test_a_step_may_copy_a_hooked_model():
    net, x = over_time()
    target = torch.tensor([0, 1, 1])
    expected = snn.Step(net, snn.RateCrossEntropy())(x, target, {}).loss
    register_synops_hooks(net)
    net(x)
    step = snn.Step(net, snn.RateCrossEntropy())
    assert torch.equal(step(x, target, {}).loss, expected)
    net(x)
    assert net.hook_data[TOTAL].item() > 0


def test_hooks_and_values_are_no_part_of_the_state_dict():
    net, x = plain()
    before = list(net.state_dict())
    register_synops_hooks(net)
    net(x)
    assert list(net.state_dict()) == before
