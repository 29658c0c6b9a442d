"""Firing and reset: ties, levels, graded spikes, precision, and what is refused; test_equations.py has the rest."""

import math
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snn_core.errors import ConfigError
from snn_core.neurons import IF, LIF, Firing, Recurrent, SpikingNeuron
from snn_core.surrogate import ATan, StraightThrough


@pytest.mark.parametrize(("fire_op", "wanted"), [(">=", [1.0, 1.0, 1.0]), (">", [0.0, 1.0, 1.0])])
def test_a_membrane_at_the_threshold_fires_with_ge_only(fire_op: str, wanted: List[float]) -> None:
    neuron = IF(fire_op=fire_op, reset_mechanism="none")
    x = torch.tensor([1.0, 0.25, 0.25]).reshape(3, 1, 1)
    assert neuron(x).flatten().tolist() == wanted


def ties(xs: List[float], rule: Dict[str, Any]) -> List[float]:
    """IF with threshold 1 on inputs that are multiples of 1/4: every sum is exact, and the membrane is often just 1."""
    mem, fired, outs = 0.0, False, []
    zero, delay = rule["reset_mechanism"] == "zero", rule["reset_delay"]
    for x in xs:
        if delay and fired and zero and not rule["reset_clears_input"]:
            mem = rule["v_reset"]
        mem += x
        if delay and fired and rule["reset_mechanism"] == "subtract":
            mem -= 1.0
        if delay and fired and rule["reset_clears_input"]:
            mem = rule["v_reset"]
        fired = mem >= 1.0 if rule["fire_op"] == ">=" else mem > 1.0
        outs.append(float(fired))
        if fired and not delay:
            mem = {"subtract": mem - 1.0, "zero": rule["v_reset"], "none": mem}[rule["reset_mechanism"]]
    return outs


@settings(deadline=None, max_examples=200)
@given(
    xs=st.lists(st.integers(-4, 8), min_size=1, max_size=20),
    mechanism=st.sampled_from(["subtract", "zero", "none"]),
    delay=st.booleans(),
    clears=st.booleans(),
    fire_op=st.sampled_from([">=", ">"]),
    v_reset=st.sampled_from([0.0, 0.25, -0.5]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_exact_ties_fire_as_declared_under_every_reset(
    xs: List[int], mechanism: str, delay: bool, clears: bool, fire_op: str, v_reset: float, dtype: torch.dtype
) -> None:
    rule = {
        "reset_mechanism": mechanism,
        "reset_delay": delay,
        "reset_clears_input": clears and delay and mechanism == "zero",
        "fire_op": fire_op,
        "v_reset": v_reset if mechanism == "zero" else 0.0,
    }
    inputs = [x / 4 for x in xs]
    out = IF(**rule)(torch.tensor(inputs, dtype=dtype).reshape(-1, 1, 1))
    assert out.dtype == dtype
    assert out.flatten().tolist() == ties(inputs, rule)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_spikes_are_exactly_0_or_1_in_every_precision(dtype: torch.dtype) -> None:
    x = torch.randn(20, 5, 7, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    out = LIF(0.9)(x)
    assert out.dtype == dtype
    assert set(out.flatten().tolist()) == {0.0, 1.0}
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert bool(torch.isfinite(x.grad).all())


@settings(deadline=None, max_examples=60)
@given(
    quarters=st.lists(st.integers(-8, 40), min_size=1, max_size=12),
    levels=st.sampled_from([None, 2, 3, 5]),
    fire_op=st.sampled_from([">=", ">"]),
)
def test_levels_count_how_often_the_threshold_fits(quarters: List[int], levels: Any, fire_op: str) -> None:
    # IF that subtracts all it fired: with multiples of 1/4 and threshold 0.5 nothing is rounded
    mem, wanted = 0.0, []
    for x in (q / 4 for q in quarters):
        mem += x
        count = 0
        while (levels is None or count < levels) and (
            mem - count * 0.5 >= 0.5 if fire_op == ">=" else mem - count * 0.5 > 0.5
        ):
            count += 1
        mem -= count * 0.5
        wanted.append(float(count))
    neuron = IF(threshold=0.5, levels=levels, fire_op=fire_op)
    out, state = neuron.unroll(torch.tensor(quarters).reshape(-1, 1, 1) / 4)
    assert out.flatten().tolist() == wanted
    assert state[0].item() == mem


def test_a_second_level_has_a_surrogate_bump_of_its_own() -> None:
    x = torch.tensor([0.2, 1.0, 1.4, 2.0, 2.6, 3.0, 9.0]).reshape(1, 1, 7).requires_grad_()
    IF(levels=3)(x).sum().backward()
    # the nearest of the thresholds 1, 2 and 3
    u = np.array([0.2 - 1, 0.0, 0.4, 0.0, 2.6 - 3, 0.0, 6.0])
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.flatten(), 1 / (1 + (math.pi * u) ** 2), rtol=1e-5)


def test_any_number_of_spikes_keeps_the_membrane_below_the_threshold() -> None:
    x = 30 * torch.rand(10, 2, 3, generator=torch.Generator().manual_seed(0))
    out, (mem,) = IF(levels=None).unroll(x)
    assert bool((mem < 1).all())
    torch.testing.assert_close(out.sum(0) + mem, x.sum(0), rtol=1e-5, atol=0)


def test_graded_spikes_are_worth_their_gain_and_reset_as_one() -> None:
    x = torch.full((6, 1, 2), 0.75)
    plain, state = LIF(1.0).unroll(x)
    graded, graded_state = LIF(1.0, gain=[0.5, -3.0]).unroll(x)
    assert torch.equal(graded, plain * torch.tensor([0.5, -3.0]))
    assert torch.equal(graded_state[0], state[0])


def test_a_learnt_gain_has_the_number_of_spikes_as_gradient() -> None:
    neuron = LIF(1.0, gain=[1.0, 1.0], learn_gain=True)
    x = torch.tensor([0.75, 0.3]).expand(8, 3, 2)
    spikes = LIF(1.0)(x)
    neuron(x).sum().backward()
    assert isinstance(neuron.gain, nn.Parameter)
    assert neuron.gain.grad is not None
    assert neuron.gain.grad.tolist() == spikes.sum(dim=(0, 1)).tolist()


@pytest.mark.parametrize("shape", [(9, 4, 3), (9, 4, 3, 5), (9, 4, 3, 2, 2)])
def test_per_channel_numbers_get_the_sum_of_per_element_gradients(shape: Tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3
    pull = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def grads(full: bool) -> List[Tensor]:
        beta, threshold = torch.tensor([0.7, 0.8, 0.9]), torch.tensor([0.8, 1.0, 1.2])
        beta, threshold = beta.double(), threshold.double()
        if full:  # one number for every neuron instead
            tail = (1,) * (len(shape) - 3)
            beta = beta.reshape(3, *tail).expand(shape[2:]).contiguous()
            threshold = threshold.reshape(3, *tail).expand(shape[2:]).contiguous()
        neuron = LIF(beta, threshold=threshold, learn_beta=True, learn_threshold=True, detach_reset=False)
        (neuron(x) * pull).sum().backward()
        return [p.grad for p in (neuron.beta, neuron.threshold) if p.grad is not None]

    for channel, element in zip(grads(False), grads(True)):
        torch.testing.assert_close(channel, element.flatten(1).sum(1) if element.ndim > 1 else element)


def test_a_hand_written_adjoint_gives_the_same_gradients() -> None:
    """Back-propagation through time of a LIF that is reset by subtraction, written out backwards in time."""
    rng = np.random.default_rng(0)
    steps, beta, threshold = 15, 0.9, 1.0
    xs, pull = rng.normal(size=steps) + 0.4, rng.normal(size=steps)
    for detach in (True, False):
        before, charged, fired, mem = [], [], [], 0.0
        for x in xs:
            before.append(mem)
            charged.append(beta * mem + x)
            fired.append(float(charged[-1] >= threshold))
            mem = charged[-1] - fired[-1] * threshold
        slope = [1 / (1 + (math.pi * (m - threshold)) ** 2) for m in charged]
        after, d_x, d_beta, d_threshold = 0.0, np.zeros(steps), 0.0, 0.0
        for t in reversed(range(steps)):
            d_spike = pull[t] - (0.0 if detach else after * threshold)
            d_charged = after + slope[t] * d_spike
            d_threshold += -slope[t] * d_spike - after * fired[t]
            d_beta += d_charged * before[t]
            d_x[t] = d_charged
            after = beta * d_charged
        neuron = LIF(
            torch.tensor(beta, dtype=torch.float64),
            threshold=torch.tensor(threshold, dtype=torch.float64),
            learn_beta=True,
            learn_threshold=True,
            detach_reset=detach,
        )
        x = torch.tensor(xs).reshape(steps, 1, 1).requires_grad_()
        (neuron(x).flatten() * torch.tensor(pull)).sum().backward()
        np.testing.assert_allclose(x.grad.flatten(), d_x, rtol=1e-12)  # type: ignore[union-attr]
        assert neuron.beta.grad.item() == pytest.approx(d_beta, rel=1e-12)  # type: ignore[union-attr]
        assert neuron.threshold.grad.item() == pytest.approx(d_threshold, rel=1e-12)  # type: ignore[union-attr]
        assert sum(fired) >= 3


class Line(LIF):
    """A LIF whose spike is the line that the straight-through surrogate declares, so that differences have a limit."""

    def fire(self, mem: Tensor, c: Dict[str, Tensor]) -> Tensor:
        return mem - c["threshold"]


def test_straight_through_gives_the_gradient_of_finite_differences_on_the_line_that_it_stands_for() -> None:
    decay = torch.tensor(0.8, dtype=torch.float64)
    line = Line(decay, detach_reset=False).double()
    hard = LIF(decay, detach_reset=False, surrogate=StraightThrough()).double()
    x = torch.randn(6, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(line, (x,))
    grads = [torch.autograd.grad(neuron(x).sum(), x)[0] for neuron in (line, hard)]
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset_mechanism": "hard"}, "reset_mechanism is 'hard'; it must be 'subtract', 'zero' or 'none'"),
        ({"fire_op": "<"}, "fire_op is '<'; it must be '>=' or '>'"),
        ({"surrogate": "atan"}, r"surrogate is 'atan'; it must be an object of snn_core.surrogate"),
        ({"levels": 0}, "levels is 0; it must be a whole number above 0, or None"),
        ({"reset_clears_input": True}, "reset_clears_input needs reset_delay=True and reset_mechanism='zero'"),
        ({"v_reset": 0.5}, "v_reset is 0.5 and reset_mechanism 'subtract'; v_reset needs 'zero'"),
        ({"learn_gain": True}, "learn_gain needs a gain to start from"),
        ({"treshold": 1.0}, r"LIF has no argument 'treshold' \(did you mean 'threshold'\?\); firing takes threshold"),
        ({"threshold": math.nan}, "LIF.threshold is nan; it must be finite"),
        ({"threshold": "one"}, "LIF.threshold is 'one'; it must be a number or one number per channel"),
        ({"beta": 1.5}, r"beta is 1.5; a decay per step must lie in \[0, 1\]"),
        ({"beta": 0.5, "tau_mem_s": 0.01}, r"both beta and its time constant are given"),
        ({"tau_mem_s": 0.01}, "give dt_s in seconds"),
        ({"tau_mem_s": 0.01, "dt_s": 0.0}, "both must be positive"),
        ({"tau_mem_s": -0.01, "dt_s": 0.001}, "both must be positive"),
    ],
)
def test_a_bad_setting_is_refused_with_what_is_allowed(options: Dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LIF(**options)


def test_a_time_constant_gives_its_decay() -> None:
    assert LIF(tau_mem_s=0.02, dt_s=0.001).beta.item() == pytest.approx(math.exp(-0.05), rel=1e-6)
    both = LIF(tau_mem_s=[0.02, 0.01], dt_s=0.001).beta.tolist()
    assert both == pytest.approx([math.exp(-0.05), math.exp(-0.1)], rel=1e-6)


def test_firing_is_a_frozen_value() -> None:
    assert Firing() == Firing(surrogate=ATan(2.0))
    with pytest.raises(AttributeError):
        Firing().fire_op = ">"  # type: ignore[misc]


def test_a_neuron_without_charge_says_what_to_write() -> None:
    class Empty(SpikingNeuron):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define charge"):
        Empty()(torch.zeros(2, 1, 1))


def test_a_recurrent_neuron_sends_back_its_graded_output() -> None:
    neuron = Recurrent(IF(gain=0.5), nn.Identity())
    out, (spk, mem) = neuron.unroll(torch.tensor([1.0, 0.5, 0.0]).reshape(3, 1, 1))
    # 1.0 fires and sends 0.5; 0.5 + 0.5 fires and sends 0.5; 0.0 + 0.5 does not
    assert out.flatten().tolist() == [0.5, 0.5, 0.0]
    assert (spk.item(), mem.item()) == (0.0, 0.5)
