"""Sequential: time folded where it should be, the static prefix computed once, and its meaning never changed."""

import pytest
import torch
from torch import nn

from snn_core.containers import Sequential, contains_temporal, is_deterministic, refuse_misread_time
from snn_core.encoders import Constant, Rate
from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import LI, LIF


class Counter(nn.Module):
    """Counts how many samples it was shown."""

    deterministic = True

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return x


class Unknown(Counter):
    deterministic = False


def by_hand(layers, x):
    """[T, B, ...] through the layers, each step by itself for those without time."""
    for layer in layers:
        x = layer(x) if isinstance(layer, (LIF, LI)) else torch.stack([layer(x_t) for x_t in x])
    return x


def test_time_is_folded_for_layers_without_it_and_kept_for_neurons() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), LIF(beta=0.8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5), LI(beta=0.9)]
    x = torch.rand(6, 4, 2, 6, 6)
    assert torch.allclose(Sequential(*layers)(x), by_hand(layers, x), atol=1e-6)


def test_a_static_prefix_is_computed_once() -> None:
    count = Counter()
    Sequential(Constant(steps=9), nn.Flatten(), count, LIF())(torch.rand(4, 2, 3))
    assert count.seen == 4


def test_a_module_of_unknown_kind_sees_every_step() -> None:
    count = Unknown()
    Sequential(Constant(steps=9), nn.Flatten(), count, LIF())(torch.rand(4, 2, 3))
    assert count.seen == 36


def test_a_layer_behind_the_first_neuron_sees_every_step() -> None:
    count = Counter()
    Sequential(Constant(steps=9), LIF(), count)(torch.rand(4, 3))
    assert count.seen == 36


def test_a_static_prefix_equals_the_expanded_input() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(5, 7), nn.LayerNorm(7), nn.GELU(), LIF(beta=0.7, threshold=0.3), nn.Linear(7, 2), LI()]
    x = torch.rand(3, 5)
    whole = Sequential(*layers)(x.expand(8, 3, 5))
    assert torch.allclose(Sequential(Constant(steps=8), *layers)(x), whole, atol=1e-6)


def test_dropout_in_training_ends_the_static_prefix() -> None:
    torch.manual_seed(0)
    net = Sequential(Constant(steps=200), nn.Dropout(0.5), LI(beta=0.0)).train()
    out = net(torch.ones(1, 4))
    assert out.std(dim=0).min() > 0.5  # draws of 0 and 2 at every step have a deviation of 1


def test_dropout_in_evaluation_does_not_end_it() -> None:
    count = Counter()
    Sequential(Constant(steps=5), nn.Dropout(0.5), count, LIF()).eval()(torch.rand(2, 3))
    assert count.seen == 2


def test_batch_norm_in_training_counts_every_step() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 3)
    norm, expanded = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    Sequential(Constant(steps=6), norm, LIF()).train()(x)
    expanded.train()(x.expand(6, 4, 3).flatten(0, 1))
    assert torch.equal(norm.running_var, expanded.running_var)


def test_a_nested_sequential_hands_the_static_prefix_on() -> None:
    count = Counter()
    Sequential(Constant(steps=5), Sequential(nn.Linear(3, 4), count), LIF())(torch.rand(2, 3))
    assert count.seen == 2


def test_a_user_container_with_neurons_gets_the_time_axis() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = LIF()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape == (5, 2, 3)
            return x + self.lif(x)

    assert Sequential(Constant(steps=5), Residual())(torch.rand(2, 3)).shape == (5, 2, 3)


def test_a_network_that_stays_static_returns_every_step() -> None:
    assert Sequential(Constant(steps=5), nn.Linear(3, 4))(torch.rand(2, 3)).shape == (5, 2, 4)


def test_an_input_without_time_is_refused_with_the_remedy() -> None:
    with pytest.raises(ShapeError, match=r"snn.Constant\(steps="):
        Sequential(nn.Linear(3, 4), LIF())(torch.rand(2, 3))


def test_two_constants_are_refused() -> None:
    with pytest.raises(ConfigError, match="keep one"):
        Sequential(Constant(steps=2), Constant(steps=3))(torch.rand(2, 3))


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.Conv1d(3, 3, 1), nn.Flatten(), nn.MaxPool1d(1)])
def test_a_layer_that_would_misread_time_in_a_plain_container_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"use snn\.Sequential"):
        refuse_misread_time(nn.Sequential(layer, LIF()))


def test_a_plain_container_of_linear_layers_and_neurons_is_accepted() -> None:
    refuse_misread_time(nn.Sequential(nn.Linear(3, 3), LIF()))


def test_a_plain_container_without_neurons_is_accepted() -> None:
    refuse_misread_time(Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()), LIF()))


def test_random_and_statistical_layers_are_not_deterministic_in_training() -> None:
    for layer in (nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.RReLU(), nn.BatchNorm2d(1)):
        assert not is_deterministic(layer.train())
        assert is_deterministic(layer.eval())


def test_encoders_count_as_owners_of_time() -> None:
    assert contains_temporal(nn.Sequential(Rate(3)))
    assert not contains_temporal(nn.Sequential(nn.Linear(1, 1)))
