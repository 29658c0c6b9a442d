"""A handle takes everything off again; wrong use is refused before anything is hooked."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snn_core as snn
from snn_core.errors import ConfigError
from snn_metrics.hooks import register_synops_hooks


def bare(module):
    """Whether nothing is left on a module or its parts."""
    return not any(
        m._forward_hooks or m._forward_pre_hooks or hasattr(m, "hook_data") or getattr(m, "clock", None)
        for m in module.modules()
    )


def net():
    return snn.Sequential(
        snn.Constant(2), nn.Linear(4, 6), snn.Recurrent(snn.LIF(), nn.Linear(6, 6)), nn.Linear(6, 2), snn.LIF()
    )


def test_remove_takes_off_hooks_values_and_clocks():
    module = net()
    handle = register_synops_hooks(module, dt_s=1.0)
    module(torch.rand(3, 4))
    assert not bare(module)
    handle.remove()
    assert bare(module)


def test_a_with_block_ends_the_counting_even_by_an_error():
    module = net()
    with pytest.raises(ZeroDivisionError), register_synops_hooks(module):
        raise ZeroDivisionError
    assert bare(module)


def test_a_second_remove_leaves_later_hooks_alone():
    module = net()
    first = register_synops_hooks(module)
    first.remove()
    register_synops_hooks(module)
    first.remove()
    module(torch.rand(3, 4))
    assert module.hook_data["total_synops_per_timestep"] > 0


def test_hooks_of_others_stay():
    module, called = nn.Sequential(nn.Linear(4, 2)), []
    module[0].register_forward_hook(lambda *args: called.append(1))
    register_synops_hooks(module).remove()
    module(torch.rand(1, 4))
    assert called == [1]


def test_a_module_cannot_be_hooked_twice():
    module = net()
    register_synops_hooks(module)
    with pytest.raises(ConfigError, match=r"it has hook_data of other hooks; call remove\(\)"):
        register_synops_hooks(module)
    with pytest.raises(ConfigError, match="its part '0' has hook_data"):
        register_synops_hooks(nn.Sequential(module[1]))
    module(torch.rand(3, 4))


def test_a_module_without_weight_layers_is_refused():
    with pytest.raises(ConfigError, match=r"Sequential has no weight layer .*needs an nn\.Linear"):
        register_synops_hooks(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("dt_s", [0, -0.1, float("nan"), float("inf"), "1 ms", True])
def test_a_step_that_is_no_length_of_time_is_refused(dt_s):
    with pytest.raises(ConfigError, match=r"dt_s is .*seconds, above 0"):
        register_synops_hooks(net(), dt_s)


@pytest.mark.parametrize("axis", [0.5, "time", True])
def test_a_time_axis_that_is_no_axis_is_refused(axis):
    with pytest.raises(ConfigError, match=r"time_axis is .*such as 0, or None"):
        register_synops_hooks(net(), time_axis=axis)


def test_an_unknown_layer_that_may_rest_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"may_rest names 'hed'; .*did you mean 'head'"):
        register_synops_hooks(nn.ModuleDict({"head": nn.Linear(1, 1)}), may_rest=["hed"])


def test_a_pool_factor_that_would_be_a_guess_is_refused_before_anything_is_hooked():
    module = nn.ModuleDict({"pool": nn.AvgPool2d(2), "head": nn.Linear(1, 1)})
    with pytest.raises(ConfigError, match="pooling="):
        register_synops_hooks(module)
    assert bare(module)


class Functional(nn.Module):
    """Uses the weights of one layer without calling it."""

    def __init__(self):
        super().__init__()
        self.called, self.borrowed = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return F.linear(self.called(x), self.borrowed.weight)


def test_a_layer_that_never_runs_is_an_error_and_not_a_zero():
    module = Functional()
    register_synops_hooks(module)
    with pytest.raises(ConfigError, match=r"'borrowed' did not run as a module .*call the layer itself.*may_rest="):
        module(torch.rand(1, 4))


def test_attention_which_uses_its_weights_by_itself_is_an_error_and_not_a_zero():
    module = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
    register_synops_hooks(module)
    with pytest.raises(ConfigError, match=r"'self_attn\.out_proj' did not run"):
        module(torch.rand(1, 3, 4))
