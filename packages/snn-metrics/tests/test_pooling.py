"""Factors of average pools: what a chip with sum pools in their place does more, where the order is certain."""

import collections

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_core.errors import ConfigError
from snn_metrics.pooling import pool_factors


def conv(channels=1):
    return nn.Conv2d(channels, channels, 1)


class Squared(nn.Module):
    """A module of unknown kind."""

    def forward(self, x):
        return x * x


class Block(nn.Module):
    """A module with a forward of its own around some layers, run in the order of their names."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


def factors_of(*layers):
    return list(pool_factors(nn.Sequential(*layers)).values())


@pytest.mark.parametrize(
    ("pool", "factor"),
    [
        (nn.AvgPool2d(2), 4),
        (nn.AvgPool2d((2, 3)), 6),
        (nn.AvgPool2d(3, stride=1), 9),
        (nn.AvgPool2d(3, stride=2, padding=1), 9),
        (nn.AvgPool2d(2, divisor_override=3), 3),
        (nn.AvgPool2d(2, divisor_override=1), 1),
        (nn.AvgPool2d(2, ceil_mode=True, divisor_override=4), 4),
        (nn.AvgPool2d(2, stride=1, ceil_mode=True), 4),
        (nn.AvgPool2d(2, count_include_pad=False), 4),
        (nn.AvgPool1d(3), 3),
        (nn.AvgPool3d(2), 8),
        (nn.AvgPool3d((1, 2, 3)), 6),
        (nn.LPPool2d(1, 2), 1),
        (snn.SumPool2d(2), 1),
        (nn.MaxPool2d(2), 1),
    ],
    ids=str,
)
def test_the_factor_is_what_the_pool_divides_by(pool, factor):
    assert factors_of(conv(), pool, conv()) == [1, factor]


@pytest.mark.parametrize(
    "between",
    [
        nn.BatchNorm2d(1),
        nn.Dropout(),
        nn.Dropout2d(),
        nn.Flatten(),
        nn.Unflatten(1, (1, 1)),
        nn.Identity(),
        nn.ZeroPad2d(1),
        nn.ReplicationPad2d(1),
        nn.MaxPool2d(2),
        nn.AdaptiveMaxPool2d(1),
        nn.LPPool2d(1, 2),
        nn.Upsample(scale_factor=2),
        nn.PixelShuffle(1),
        snn.SumPool2d(2),
        nn.Sequential(nn.BatchNorm2d(1), nn.Dropout()),
    ],
    ids=str,
)
def test_the_factor_passes_a_layer_that_passes_values_on(between):
    assert factors_of(conv(), nn.AvgPool2d(2), between, conv()) == [1, 4]


@pytest.mark.parametrize(
    "between",
    [nn.ReLU(), nn.Sigmoid(), snn.NeuromorphicReLU(), snn.LIF(), nn.Sequential(nn.Identity(), nn.Tanh())],
    ids=str,
)
def test_the_factor_ends_where_new_values_are_sent(between):
    assert factors_of(conv(), nn.AvgPool2d(2), between, conv()) == [1, 1]


def test_the_factor_is_used_up_by_the_first_weight_layer():
    assert factors_of(nn.AvgPool2d(2), conv(), conv()) == [4, 1]


def test_factors_of_pools_in_a_row_multiply():
    assert factors_of(nn.AvgPool2d(2), nn.BatchNorm2d(1), nn.AvgPool2d(3), conv()) == [36]


def test_the_factor_goes_through_containers_in_containers():
    model = nn.Sequential(
        collections.OrderedDict(
            front=nn.Sequential(conv(), nn.AvgPool2d(2)),
            back=snn.Sequential(nn.BatchNorm2d(1), nn.Sequential(conv(), nn.AvgPool2d(3)), nn.Flatten()),
            head=nn.Linear(1, 1),
        )
    )
    assert pool_factors(model) == {"front.0": 1, "back.1.0": 4, "head": 9}


def test_a_container_that_only_adds_arguments_is_still_in_order():
    class Front(nn.Sequential):
        def __init__(self, size):
            super().__init__(conv(), nn.AvgPool2d(size))

    assert factors_of(Front(2), conv()) == [1, 4]


def test_a_recurrent_connection_hears_the_neuron_and_not_the_pool():
    recurrent = snn.Recurrent(snn.LIF(), nn.Linear(4, 4))
    assert factors_of(nn.AvgPool2d(2), nn.Flatten(), recurrent, nn.Linear(4, 2)) == [1, 1]


def test_a_pool_inside_a_recurrent_connection_counts_there():
    connection = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2), conv())
    assert factors_of(snn.Recurrent(snn.LIF(), connection), conv()) == [4, 1]


def test_an_spiking_lstm_hears_the_pool_with_its_input_weights_alone():
    found = pool_factors(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), snn.SLSTM(4, 2)))
    assert found == {"2.input_weights": 4, "2.recurrent_weights": 1}


def test_a_network_without_average_pools_needs_no_order():
    model = Block(a=conv(), act=Squared(), inner=Block(b=conv(), pool=nn.MaxPool2d(2)), c=nn.Linear(1, 1))
    assert pool_factors(model) == {"a": 1, "inner.b": 1, "c": 1}


def test_a_sequence_inside_a_block_is_read_where_nothing_leaves_it():
    # as in the shortcut of a residual network
    model = Block(body=conv(), shortcut=nn.Sequential(nn.AvgPool2d(2), conv(), nn.BatchNorm2d(1)))
    assert pool_factors(model) == {"body": 1, "shortcut.1": 4}


def test_pooling_none_counts_activations_as_they_stand():
    model = Block(a=conv(), pool=nn.AdaptiveAvgPool2d(1), b=conv())
    assert pool_factors(model, "none") == {"a": 1, "b": 1}


def test_a_mapping_gives_its_layers_their_factors_and_the_others_one():
    model = Block(a=conv(), pool=nn.AdaptiveAvgPool2d(1), b=conv())
    assert pool_factors(model, {"b": 49}) == {"a": 1, "b": 49}


@pytest.mark.parametrize(
    "pool",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, padding=1, count_include_pad=False),
    ],
    ids=str,
)
def test_a_divisor_that_depends_on_the_input_is_refused_where_a_weight_layer_takes_it(pool):
    with pytest.raises(ConfigError, match=rf"'3' may stand .*divisor of {type(pool).__name__} '1' depends.*pooling="):
        factors_of(conv(), pool, nn.Flatten(), nn.Linear(1, 1))
    assert factors_of(conv(), pool) == [1]
    assert factors_of(conv(), pool, nn.ReLU(), conv()) == [1, 1]


@pytest.mark.parametrize(
    ("model", "layer", "reason"),
    [
        (Block(a=conv(), pool=nn.AvgPool2d(2)), "a", "AvgPool2d 'pool' sends may go anywhere in the forward of Block"),
        (Block(body=nn.Sequential(conv(), nn.AvgPool2d(2)), b=conv()), "b", "AvgPool2d 'body.1' sends"),
        (nn.Sequential(nn.AvgPool2d(2), Block(a=conv())), "1.a", "AvgPool2d '0' sends .* forward of Block '1'"),
        (nn.Sequential(nn.AvgPool2d(2), Squared(), conv()), "2", "AvgPool2d '0' sends .* forward of Squared '1'"),
        (nn.Sequential(nn.AvgPool2d(2), nn.LayerNorm(2), conv()), "2", "forward of LayerNorm '1'"),
        (nn.Sequential(Block(pool=nn.AvgPool2d(2)), conv()), "1", "forward of Block '0'"),
        (nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"), conv()), "2", "of Upsample"),
        (nn.Sequential(nn.AvgPool2d(2), nn.MultiheadAttention(2, 1)), "1.out_proj", "of MultiheadAttention"),
        (nn.Sequential(nn.AvgPool2d(2), snn.SConv2dLSTM(1, 1, 3)), "1.conv", "of SConv2dLSTM"),
        (Block(layers=nn.ModuleList([nn.AvgPool2d(2), conv()])), "layers.1", "forward of ModuleList 'layers'"),
    ],
    ids=lambda case: case if isinstance(case, str) else type(case).__name__,
)
def test_an_order_that_is_not_certain_is_refused_with_the_remedy(model, layer, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        pool_factors(model)
    assert f"weight layer {layer!r} may stand behind an average pool" in str(caught.value)
    assert f"pooling={{{layer!r}: factor}}" in str(caught.value)


def test_an_order_that_is_not_certain_names_all_layers_that_may_stand_behind_the_pool():
    model = Block(a=conv(), b=conv(), pool=nn.AdaptiveAvgPool2d(1), head=nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"one of the weight layers 'a' to 'head' may .*pooling={'head': factor}"):
        pool_factors(model)


def test_a_pool_whose_values_meet_no_weight_layer_needs_no_order():
    assert factors_of(conv(), Block(body=nn.Sequential(conv(), nn.AvgPool2d(2))), snn.LIF(), conv()) == [1, 1, 1]


def test_a_layer_in_two_places_with_two_factors_is_refused():
    shared = conv()
    assert factors_of(nn.AvgPool2d(2), shared, nn.AvgPool2d(2), shared) == [4]
    with pytest.raises(ConfigError, match=r"'0' .* two places, with the factors 1 and 4"):
        factors_of(shared, nn.AvgPool2d(2), shared)


def test_an_unknown_name_in_a_mapping_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"pooling names 'hed'; .*did you mean 'head'"):
        pool_factors(Block(head=nn.Linear(1, 1)), {"hed": 4.0})


@pytest.mark.parametrize("factor", [0, -1.0, float("nan"), "4", True, None])
def test_a_factor_that_is_no_number_above_0_is_refused(factor):
    with pytest.raises(ConfigError, match=r"pooling\['0'\] is .*above 0"):
        pool_factors(nn.Sequential(conv()), {"0": factor})


@pytest.mark.parametrize("pooling", ["average", None, 4])
def test_another_word_for_pooling_is_refused(pooling):
    with pytest.raises(ConfigError, match="it must be 'sum', 'none', or a mapping"):
        pool_factors(nn.Sequential(conv()), pooling)


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2), nn.AvgPool2d(3, stride=2, padding=1), nn.AvgPool2d((1, 3), divisor_override=5)], ids=str
)
def test_the_factor_makes_the_values_those_of_a_sum_pool(pool):
    x = torch.rand(2, 3, 7, 8, dtype=torch.float64)
    summed = torch.nn.functional.avg_pool2d(x, pool.kernel_size, pool.stride, pool.padding, divisor_override=1)
    (factor,) = pool_factors(nn.Sequential(pool, conv(3))).values()
    torch.testing.assert_close(pool(x) * factor, summed)
