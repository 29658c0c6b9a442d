"""One small example of every temporal layer that core has, in the settings that differ, for tests that hold for all."""

from typing import Any, Callable, Dict, NamedTuple, Tuple

from torch import nn

from snn_core.neurons import (
    ALIF,
    IF,
    LI,
    LIF,
    PSN,
    QIF,
    SLSTM,
    AdEx,
    Alpha,
    ExpLIF,
    Izhikevich,
    Lapicque,
    MaskedPSN,
    OneToOne,
    ParallelLIF,
    ParametricLIF,
    Recurrent,
    SConv2dLSTM,
    SigmaDelta,
    SlidingPSN,
    Synaptic,
    Temporal,
)
from snn_core.surrogate import ATan

__all__ = ["Example", "every_neuron"]

Shape = Tuple[int, ...]

STEPS, BATCH, CHANNELS = 12, 3, 4
FLAT: Shape = (STEPS, BATCH, CHANNELS)
IMAGE: Shape = (STEPS, BATCH, 2, 5, 6)


class Example(NamedTuple):
    """A layer that fires for standard normal inputs: how to make it, and the shape `[T, B, ...]` of its input."""

    make: Callable[[], Temporal]
    shape: Shape


def every_neuron() -> Dict[str, Example]:
    """An example of each layer and of each setting that changes its equations, by name; each call of `make` is new."""
    flat: Dict[str, Callable[[], Temporal]] = {**_resets(), **_membranes(), **_nonlinear(), **_sequences()}
    image: Dict[str, Callable[[], Temporal]] = {
        "LIF, image": lambda: LIF(beta=[0.7, 0.9], threshold=[0.8, 1.2]),
        "Recurrent, convolution": lambda: Recurrent(LIF(0.8), nn.Conv2d(2, 2, 3, padding=1)),
        "SConv2dLSTM": lambda: SConv2dLSTM(2, 3, 3, threshold=0.05),
        "SConv2dLSTM, max pool": lambda: SConv2dLSTM(2, 3, 3, max_pool=2, threshold=0.1, reset_mechanism="subtract"),
        "SConv2dLSTM, average pool": lambda: SConv2dLSTM(2, 3, (3, 1), avg_pool=2, threshold=0.02),
    }
    return {
        **{name: Example(make, FLAT) for name, make in flat.items()},
        **{name: Example(make, IMAGE) for name, make in image.items()},
    }


def _resets() -> Dict[str, Callable[[], Temporal]]:
    """LIF in each of the declared dynamics."""
    return {
        "LIF": lambda: LIF(0.9),
        "LIF, zero": lambda: LIF(0.9, reset_mechanism="zero"),
        "LIF, zero to a value": lambda: LIF(0.9, reset_mechanism="zero", v_reset=-0.3),
        "LIF, none": lambda: LIF(0.9, reset_mechanism="none"),
        "LIF, delayed": lambda: LIF(0.9, reset_delay=True),
        "LIF, delayed zero": lambda: LIF(0.9, reset_mechanism="zero", reset_delay=True),
        "LIF, delayed zero clears input": lambda: LIF(
            0.9, reset_mechanism="zero", reset_delay=True, reset_clears_input=True
        ),
        "LIF, above": lambda: LIF(0.9, fire_op=">"),
        "LIF, gradient through the reset": lambda: LIF(0.9, detach_reset=False),
        "LIF, two levels": lambda: LIF(0.9, threshold=0.5, levels=2),
        "LIF, any number of spikes": lambda: LIF(0.9, threshold=0.5, levels=None, reset_mechanism="zero"),
        "LIF, graded": lambda: LIF(0.9, gain=[0.5, 1.0, 2.0, -1.0], learn_gain=True),
        "LIF, learnt": lambda: LIF([0.5, 0.8, 0.9, 1.0], threshold=1.0, learn_beta=True, learn_threshold=True),
    }


def _membranes() -> Dict[str, Callable[[], Temporal]]:
    return {
        "IF": lambda: IF(),
        "LI": lambda: LI(0.9, learn_beta=True),
        "ParametricLIF": lambda: ParametricLIF(2.0, threshold=0.5),
        "ParametricLIF, raw input": lambda: ParametricLIF(3.0, decay_input=False),
        "Lapicque": lambda: Lapicque(2.0, 2.0, learn_resistance=True, learn_capacitance=True, threshold=0.5),
        "Synaptic": lambda: Synaptic(0.7, 0.9, learn_alpha_syn=True, learn_beta=True),
        "Synaptic, delayed zero": lambda: Synaptic(0.7, 0.9, reset_mechanism="zero", reset_delay=True),
        "Alpha": lambda: Alpha(0.9, 0.6, learn_alpha_syn=True, learn_beta=True, threshold=0.5),
        "Alpha, zero": lambda: Alpha(0.9, 0.6, reset_mechanism="zero", v_reset=-0.2, threshold=0.5),
        "ALIF": lambda: ALIF(0.9, 0.95, learn_beta=True, learn_rho=True, learn_scale=True),
        "ALIF, zero": lambda: ALIF(0.9, [0.8, 0.9, 0.95, 0.99], reset_mechanism="zero"),
        "SigmaDelta": lambda: SigmaDelta(0.5, bias=[0.0, 0.1, -0.1, 0.2], learn_bias=True),
        "SigmaDelta, encoder": lambda: SigmaDelta(0.5, sigma=False, rectify=False),
    }


def _nonlinear() -> Dict[str, Callable[[], Temporal]]:
    return {
        "ExpLIF": lambda: ExpLIF(2.0, learn=("tau", "delta", "rheobase", "v_rest"), threshold=0.6),
        "QIF": lambda: QIF(2.0, learn=("tau", "a", "v_rest", "v_crit"), threshold=0.6, v_reset=-0.1),
        "AdEx": lambda: AdEx(2.0, 10.0, 0.1, 0.2, learn=("tau", "tau_w", "a", "b"), threshold=0.6),
        "AdEx, delayed": lambda: AdEx(2.0, 10.0, 0.1, 0.2, threshold=0.6, reset_delay=True),
        "Izhikevich": lambda: _izhikevich(learn=("a", "b", "d", "square", "slope", "offset", "v_start")),
        "Izhikevich, delayed": lambda: _izhikevich(reset_delay=True),
    }


def _izhikevich(**options: Any) -> Izhikevich:
    # in units of 100 mV, for inputs of size 1
    scaled = {"c": -0.65, "d": 0.08, "square": 4.0, "offset": 1.4, "v_start": -0.65, "threshold": 0.3}
    return Izhikevich(**{**scaled, "surrogate": ATan(), **options})


def _sequences() -> Dict[str, Callable[[], Temporal]]:
    """Layers with a weight in the loop, or with the whole sequence at once."""
    return {
        "Recurrent, linear": lambda: Recurrent(LIF(0.9), nn.Linear(CHANNELS, CHANNELS)),
        "Recurrent, one to one": lambda: Recurrent(Synaptic(0.7, 0.9), OneToOne(CHANNELS, weight=-0.3)),
        "Recurrent, one weight": lambda: Recurrent(ALIF(0.9, gain=0.5, learn_gain=True), OneToOne()),
        "SLSTM": lambda: SLSTM(CHANNELS, 5, threshold=0.1),
        "SLSTM, delayed": lambda: SLSTM(CHANNELS, 5, threshold=0.1, reset_mechanism="zero", reset_delay=True),
        "ParallelLIF": lambda: ParallelLIF(0.9, learn_beta=True),
        "ParallelLIF, per channel": lambda: ParallelLIF([0.0, 0.5, 0.9, 1.0], learn_beta=True, threshold=0.8),
        "PSN": lambda: PSN(STEPS, threshold=0.3),
        "MaskedPSN": lambda: MaskedPSN(STEPS, 3, masking=0.8, threshold=0.2),
        "SlidingPSN": lambda: SlidingPSN(4),
    }
