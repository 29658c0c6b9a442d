"""SpikeRate, ActivityL1 and Silence against numbers read off the layers' outputs."""

from typing import Any, List

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core.errors import ConfigError
from snn_core.neurons import OneToOne, Recurrent
from snn_core.step import Step
from snn_metrics import ActivityL1, Silence, SpikeRate


def network() -> snn.Sequential:
    torch.manual_seed(0)
    return snn.Sequential(
        nn.Linear(4, 6), snn.LIF(beta=0.8), nn.Linear(6, 5), snn.LIF(beta=0.9), nn.Linear(5, 3), snn.LI(beta=0.9)
    )


def sequence() -> Tensor:
    return 2 * torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(1))


def run(term: snn.Term, model: Any = None, valid: Any = None) -> snn.StepOutput:
    step = Step(model or network(), snn.OutputMSE(), [term])
    controls = {name: torch.tensor(value) for name, value in step.controls.items()}
    return step(sequence(), torch.zeros(3, 3), controls, valid)


def outputs(model: Any = None) -> List[Tensor]:
    """What the two firing layers of `network()` send, `[7, 3, N]` each."""
    net, x, found = model or network(), sequence(), []
    for layer in net:
        x = layer(x)
        if isinstance(layer, snn.LIF):
            found.append(x)
    return found


def test_the_spike_rate_is_a_part_for_each_layer_that_fires() -> None:
    step = Step(network(), snn.OutputMSE(), [SpikeRate()])
    assert step.measure_names == ("spike_rate.1", "spike_rate.3")
    assert [m.item() for m in run(SpikeRate()).measures] == [pytest.approx(out.mean().item()) for out in outputs()]


def test_rates_outside_the_bounds_cost_their_squared_distance() -> None:
    first, second = (out.mean().item() for out in outputs())
    low, high = (first + second) / 2 + 0.01, (first + second) / 2 + 0.02
    want = sum(max(0.0, low - rate) ** 2 + max(0.0, rate - high) ** 2 for rate in (first, second))
    assert want > 0
    out = run(SpikeRate(low=low, high=high, weight=3.0))
    assert out.penalties[0].item() == pytest.approx(3 * want, rel=1e-5)
    assert run(SpikeRate(low=0.0)).penalties[0].item() == 0


def test_activity_is_the_mean_magnitude_over_all_neurons() -> None:
    every = torch.cat([out.flatten(2) for out in outputs()], dim=2)
    out = run(ActivityL1(weight=0.5))
    assert out.measures[0].item() == pytest.approx(every.mean().item(), rel=1e-6)
    assert out.penalties[0].item() == pytest.approx(0.5 * every.mean().item(), rel=1e-6)


def test_silence_is_the_share_of_sample_and_neuron_pairs_without_a_spike() -> None:
    spikes = torch.cat([out.sum(0) for out in outputs()], dim=1)
    silent = (spikes == 0).float().mean().item()
    assert 0 < silent < 1
    assert run(Silence()).measures[0].item() == pytest.approx(silent, rel=1e-6)


def test_the_gradient_of_silence_reaches_silent_neurons_alone() -> None:
    step = Step(network(), snn.OutputMSE(), [Silence(only=["1"])])
    out = step(sequence(), torch.zeros(3, 3), {"silence.weight": torch.tensor(1.0)})
    (slope,) = torch.autograd.grad(out.penalties[0], step.model[0].bias)
    ever_silent = (outputs()[0].sum(0) == 0).any(0)
    assert ever_silent.any()
    assert (slope[ever_silent] != 0).all()
    assert (slope[~ever_silent] == 0).all()


@pytest.mark.parametrize("term", [SpikeRate(), ActivityL1(), Silence()])
def test_padded_samples_count_nothing(term: snn.Term) -> None:
    alone = [m.item() for m in _alone(term)]
    padded = run(term, valid=torch.tensor([1.0, 0.0, 0.0])).measures
    assert [m.item() for m in padded] == [pytest.approx(value, rel=1e-6) for value in alone]


def _alone(term: snn.Term) -> Any:
    step = Step(network(), snn.OutputMSE(), [term])
    controls = {name: torch.tensor(value) for name, value in step.controls.items()}
    return step(sequence()[:, :1], torch.zeros(1, 3), controls).measures


def test_a_readout_counts_only_when_it_is_named() -> None:
    step = Step(network(), snn.OutputMSE(), [SpikeRate(only=["5", "1"])])
    assert step.measure_names == ("spike_rate.5", "spike_rate.1")


def test_a_neuron_inside_a_recurrent_one_is_no_layer_of_its_own() -> None:
    model = snn.Sequential(nn.Linear(4, 3), Recurrent(snn.LIF(beta=0.9), OneToOne(3)))
    step = Step(model, snn.OutputMSE(), [SpikeRate()])
    assert step.measure_names == ("spike_rate.1",)
    assert run(SpikeRate(), model).measures[0].item() == pytest.approx(model(sequence()).mean().item(), rel=1e-6)


def test_a_model_that_is_one_neuron_has_a_name_in_reports() -> None:
    step = Step(snn.LIF(beta=0.5), snn.OutputMSE(), [SpikeRate()])
    assert step.measure_names == ("spike_rate.model",)


def test_negative_spikes_count_by_magnitude() -> None:
    model = snn.Sequential(snn.SigmaDelta(threshold=0.0, sigma=False, rectify=False), nn.Linear(4, 3))
    sent = model[0](sequence())
    assert (sent < 0).any()
    assert run(ActivityL1(), model).measures[0].item() == pytest.approx(sent.abs().mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpikeRate(low=-1), r"spike_rate.low is -1; it must be a number of at least 0"),
        (lambda: SpikeRate(low=0.5, high=0.1), r"spike_rate.high is 0.1; it must be a number of at least 0.5"),
        (lambda: ActivityL1(weight=-1), r"activity_l1.weight is -1"),
        (lambda: Silence(weight=float("inf")), r"silence.weight is inf"),
        (lambda: run(SpikeRate(only=["2"])), r"spike_rate.only names '2'.*neuron layers are '1', '3', '5'"),
        (lambda: run(Silence(), nn.Linear(4, 3)), r"silence: the model has no neuron layer that fires; add one"),
    ],
)
def test_wrong_use_is_refused_with_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
