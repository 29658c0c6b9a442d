"""Every neuron's values and gradients against its published equation, written out for one neuron in plain Python.

The loops run on dual numbers (a float with its derivatives), so one text of each equation is the oracle of both. They
remember their spikes instead of finding them again in the state, as the library does for a delayed reset.
"""

import math
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_core.neurons import (
    ALIF,
    IF,
    LI,
    LIF,
    QIF,
    AdEx,
    Alpha,
    ExpLIF,
    Izhikevich,
    Lapicque,
    Neuron,
    OneToOne,
    ParametricLIF,
    Recurrent,
    SigmaDelta,
    Synaptic,
)

STEPS = 12


class Dual:
    """A float and its derivatives with respect to everything that the test differentiates by."""

    def __init__(self, value: float, slopes: np.ndarray) -> None:
        self.value = float(value)
        self.slopes = slopes

    @staticmethod
    def of(number: "Number") -> "Dual":
        return number if isinstance(number, Dual) else Dual(number, np.zeros(1))

    def __add__(self, other: "Number") -> "Dual":
        other = Dual.of(other)
        return Dual(self.value + other.value, self.slopes + other.slopes)

    def __sub__(self, other: "Number") -> "Dual":
        return self + Dual.of(other) * -1.0

    def __mul__(self, other: "Number") -> "Dual":
        other = Dual.of(other)
        return Dual(self.value * other.value, self.slopes * other.value + self.value * other.slopes)

    def __truediv__(self, other: "Number") -> "Dual":
        other = Dual.of(other)
        return self * other.map(lambda v: 1 / v, lambda v: -1 / v**2)

    def __rsub__(self, other: "Number") -> "Dual":
        return Dual.of(other) - self

    __radd__ = __add__
    __rmul__ = __mul__

    def __rtruediv__(self, other: "Number") -> "Dual":
        return Dual.of(other) / self

    def map(self, function: Callable[[float], float], slope: Callable[[float], float]) -> "Dual":
        return Dual(function(self.value), slope(self.value) * self.slopes)

    def exp(self) -> "Dual":
        return self.map(math.exp, math.exp)

    def log(self) -> "Dual":
        return self.map(math.log, lambda v: 1 / v)

    def held(self) -> "Dual":
        """The same number without derivatives."""
        return Dual(self.value, np.zeros(1))

    def at_most(self, bound: "Number") -> "Dual":
        bound = Dual.of(bound)
        return self if self.value <= bound.value else bound


Number = Union[float, Dual]
State = List[Dual]


def atan_slope(u: float) -> float:
    return 1 / (1 + (math.pi * u) ** 2)


class Rule(NamedTuple):
    """The declared dynamics that the test draws."""

    reset: str = "subtract"
    v_reset: float = 0.0
    delay: bool = False
    clears_input: bool = False
    detach: bool = True
    fire_op: str = ">="
    levels: Optional[int] = 1
    gain: Optional[float] = None

    def options(self) -> Dict[str, Any]:
        return {
            "reset_mechanism": self.reset,
            "v_reset": self.v_reset,
            "reset_delay": self.delay,
            "reset_clears_input": self.clears_input,
            "detach_reset": self.detach,
            "fire_op": self.fire_op,
            "levels": self.levels,
            **({} if self.gain is None else {"gain": self.gain, "learn_gain": True}),
        }


class Equation:
    """A neuron by its equation: `charge` integrates, `jump` is what a spike adds to other states than the membrane."""

    def __init__(self, p: Dict[str, Number], rule: Rule) -> None:
        self.p = p
        self.rule = rule

    def start(self) -> State:
        return [Dual.of(0.0)]

    def charge(self, x: Number, state: State) -> State:
        raise NotImplementedError

    def jump(self, state: State, spikes: Dual) -> State:
        return state

    def membrane(self, state: State) -> Dual:
        return state[0]

    def threshold(self, state: State) -> Number:
        return self.p["threshold"]

    def output(self, spikes: Dual) -> Dual:
        return spikes * self.p["gain"] if "gain" in self.p else spikes

    def fire(self, mem: Dual, threshold: Number) -> Dual:
        thr = Dual.of(threshold)
        above = mem.value >= thr.value if self.rule.fire_op == ">=" else mem.value > thr.value
        if self.rule.levels == 1:
            u = mem - thr
            return Dual(1.0 if above else 0.0, atan_slope(u.value) * u.slopes)
        most = math.inf if self.rule.levels is None else self.rule.levels
        ratio = mem.value / thr.value
        count = math.floor(ratio) if self.rule.fire_op == ">=" else math.ceil(ratio) - 1
        u = mem - min(max(round(ratio), 1), most) * thr
        return Dual(min(max(count, 0), most), atan_slope(u.value) * u.slopes)

    def reset(self, state: State, spikes: Dual, threshold: Number) -> State:
        felt = spikes.held() if self.rule.detach else spikes
        return [self.reset_membrane(state[0], felt, threshold), *state[1:]]

    def reset_membrane(self, mem: Dual, felt: Dual, threshold: Number) -> Dual:
        if self.rule.reset == "subtract":
            return mem - felt * threshold
        if self.rule.reset == "zero":
            felt = felt.at_most(1.0)
            return mem * (1 - felt) + felt * self.rule.v_reset
        return mem

    def step(self, x: Number, state: State, earlier: Dual) -> Tuple[Dual, State]:
        rule = self.rule
        threshold = self.threshold(state)
        if rule.delay and rule.reset == "zero" and not rule.clears_input:
            state = self.charge(x, self.jump(self.reset(state, earlier, threshold), earlier))
        elif rule.delay:
            state = self.jump(self.reset(self.charge(x, state), earlier, threshold), earlier)
        else:
            state = self.charge(x, state)
        spikes = self.fire(state[0], threshold)
        if not rule.delay:
            state = self.jump(self.reset(state, spikes, threshold), spikes)
        return spikes, state

    def run(self, xs: Sequence[Number]) -> Tuple[List[Dual], State]:
        state, outs = self.start(), []
        # a delayed reset counts a membrane that starts above the threshold as one that has fired
        spikes = self.fire(self.membrane(state), self.threshold(state))
        for x in xs:
            spikes, state = self.step(x, state, spikes)
            outs.append(self.output(spikes))
        return outs, state


class IFEquation(Equation):
    def charge(self, x: Number, state: State) -> State:
        return [state[0] + x]


class LIFEquation(Equation):
    def charge(self, x: Number, state: State) -> State:
        return [self.p["beta"] * state[0] + x]


class ParametricEquation(Equation):
    def leak(self) -> Number:
        return 1 / (1 + (Dual.of(self.p["w"]) * -1.0).exp())

    def charge(self, x: Number, state: State) -> State:
        return [state[0] + self.leak() * (x - state[0])]


class RawParametricEquation(ParametricEquation):
    def charge(self, x: Number, state: State) -> State:
        return [state[0] * (1 - self.leak()) + x]


class LapicqueEquation(Equation):
    DT = 0.5

    def charge(self, x: Number, state: State) -> State:
        r, c = self.p["resistance"], self.p["capacitance"]
        # C dv/dt = x - v / R
        return [state[0] + self.DT * (x - state[0] / r) / c]


class SynapticEquation(Equation):
    def start(self) -> State:
        return [Dual.of(0.0), Dual.of(0.0)]

    def charge(self, x: Number, state: State) -> State:
        syn = self.p["alpha_syn"] * state[1] + x
        return [self.p["beta"] * state[0] + syn, syn]


class AlphaEquation(Equation):
    def start(self) -> State:
        return [Dual.of(0.0)] * 3

    def scale(self) -> Number:
        alpha, beta = Dual.of(self.p["alpha_syn"]).log(), Dual.of(self.p["beta"]).log()
        return alpha / (beta - alpha) + 1

    def charge(self, x: Number, state: State) -> State:
        exc = self.p["alpha_syn"] * state[1] + x
        inh = self.p["beta"] * state[2] - x
        return [self.scale() * (exc + inh), exc, inh]

    def reset(self, state: State, spikes: Dual, threshold: Number) -> State:
        felt = spikes.held() if self.rule.detach else spikes
        mem, exc, inh = state
        if self.rule.reset == "subtract":
            exc = exc - felt * threshold / self.scale()
        if self.rule.reset == "zero":
            felt = felt.at_most(1.0)
            exc, inh = exc * (1 - felt) + felt * self.rule.v_reset / self.scale(), inh * (1 - felt)
        # the membrane is what the currents make of it
        return [self.scale() * (exc + inh) if self.rule.reset != "none" else mem, exc, inh]


class ALIFEquation(Equation):
    def start(self) -> State:
        return [Dual.of(0.0), Dual.of(0.0)]

    def threshold(self, state: State) -> Number:
        return self.p["threshold"] + self.p["scale"] * state[1]

    def charge(self, x: Number, state: State) -> State:
        return [self.p["beta"] * state[0] + x, state[1]]

    def jump(self, state: State, spikes: Dual) -> State:
        return [state[0], self.p["rho"] * state[1] + (1 - self.p["rho"]) * spikes]


class ExpEquation(Equation):
    DT = 0.5

    def start(self) -> State:
        return [Dual.of(self.p["v_rest"])]

    def upstroke(self, mem: Dual) -> Dual:
        exponent = (mem - self.p["rheobase"]) / self.p["delta"]
        return self.p["delta"] * exponent.at_most(20.0).exp()

    def charge(self, x: Number, state: State) -> State:
        (mem,) = state
        return [mem + self.DT / self.p["tau"] * (self.p["v_rest"] - mem + self.upstroke(mem) + x)]


class QIFEquation(Equation):
    DT = 0.5

    def start(self) -> State:
        return [Dual.of(self.p["v_rest"])]

    def charge(self, x: Number, state: State) -> State:
        (mem,) = state
        m = mem.at_most(self.p["threshold"])
        return [mem + self.DT / self.p["tau"] * (self.p["a"] * (m - self.p["v_rest"]) * (m - self.p["v_crit"]) + x)]


class AdExEquation(ExpEquation):
    def start(self) -> State:
        return [Dual.of(self.p["v_rest"]), Dual.of(0.0)]

    def charge(self, x: Number, state: State) -> State:
        mem, w = state
        p, dt = self.p, self.DT
        return [
            mem + dt / p["tau"] * (p["v_rest"] - mem + self.upstroke(mem) - w + x),
            w + dt / p["tau_w"] * (p["a"] * (mem - p["v_rest"]) - w),
        ]

    def jump(self, state: State, spikes: Dual) -> State:
        return [state[0], state[1] + self.p["b"] * spikes]


class IzhikevichEquation(Equation):
    DT = 0.5

    def start(self) -> State:
        return [Dual.of(self.p["v_start"]), self.p["b"] * Dual.of(self.p["v_start"])]

    def charge(self, x: Number, state: State) -> State:
        v, u = state
        p = self.p
        top = v.at_most(p["threshold"])
        dv = p["square"] * top * top + p["slope"] * top + p["offset"] - u + x
        return [v + self.DT * dv, u + self.DT * p["a"] * (p["b"] * v - u)]

    def jump(self, state: State, spikes: Dual) -> State:
        return [state[0], state[1] + self.p["d"] * spikes]

    def fire(self, mem: Dual, threshold: Number) -> Dual:
        u = mem - threshold
        slope = 0.05 / (1 + (math.pi * 0.05 * u.value) ** 2)
        above = u.value >= 0 if self.rule.fire_op == ">=" else u.value > 0
        return Dual(1.0 if above else 0.0, slope * u.slopes)


class SelfConnectedEquation(LIFEquation):
    """LIF that hears its last output times a weight."""

    def start(self) -> State:
        return [Dual.of(0.0), Dual.of(0.0)]

    def membrane(self, state: State) -> Dual:
        return state[1]

    def step(self, x: Number, state: State, earlier: Dual) -> Tuple[Dual, State]:
        heard, mem = state
        spikes, inner = super().step(x + self.p["connection.weight"] * heard, [mem], earlier)
        return spikes, [self.output(spikes), *inner]


EULER = Rule(reset="zero", v_reset=-0.1)
FREE = ("subtract", "zero", "none")


class Case(NamedTuple):
    """A neuron for a rule, its equation, and the resets and inputs that make sense for it."""

    make: Callable[..., Neuron]
    equation: Callable[[Dict[str, Number], Rule], Equation]
    resets: Tuple[str, ...] = FREE
    delays: Tuple[bool, ...] = (False, True)
    many: bool = True
    scale: float = 1.0


CASES: Dict[str, Case] = {
    "IF": Case(lambda **o: IF(learn_threshold=True, **o), IFEquation),
    "LIF": Case(lambda **o: LIF(0.85, learn_beta=True, learn_threshold=True, **o), LIFEquation),
    "ParametricLIF": Case(lambda **o: ParametricLIF(2.5, threshold=0.5, **o), ParametricEquation),
    "ParametricLIF, raw": Case(lambda **o: ParametricLIF(2.5, decay_input=False, **o), RawParametricEquation),
    "Lapicque": Case(
        lambda **o: Lapicque(2.0, 1.5, dt=0.5, learn_resistance=True, learn_capacitance=True, threshold=0.4, **o),
        LapicqueEquation,
    ),
    "Synaptic": Case(lambda **o: Synaptic(0.6, 0.9, learn_alpha_syn=True, learn_beta=True, **o), SynapticEquation),
    "Alpha": Case(
        lambda **o: Alpha(0.9, 0.5, learn_alpha_syn=True, learn_beta=True, threshold=0.4, **o), AlphaEquation
    ),
    "ALIF": Case(
        lambda **o: ALIF(0.9, 0.8, 0.7, learn_beta=True, learn_rho=True, learn_scale=True, learn_threshold=True, **o),
        ALIFEquation,
        delays=(False,),
    ),
    "ExpLIF": Case(
        lambda **o: ExpLIF(
            1.5, 0.3, 0.6, -0.1, dt=0.5, learn=("tau", "delta", "rheobase", "v_rest"), threshold=0.7, **o
        ),
        ExpEquation,
        resets=("zero",),
    ),
    "QIF": Case(
        lambda **o: QIF(1.5, 0.9, -0.1, 0.5, dt=0.5, learn=("tau", "a", "v_rest", "v_crit"), threshold=0.7, **o),
        QIFEquation,
        resets=("zero",),
    ),
    "AdEx": Case(
        lambda **o: AdEx(
            1.5,
            6.0,
            0.2,
            0.3,
            0.3,
            0.6,
            -0.1,
            dt=0.5,
            learn=("tau", "tau_w", "a", "b", "delta", "rheobase", "v_rest"),
            threshold=0.7,
            **o,
        ),
        AdExEquation,
        resets=("zero",),
    ),
    "Izhikevich": Case(
        lambda **o: Izhikevich(
            c=o.pop("v_reset"), learn=("a", "b", "d", "square", "slope", "offset", "v_start"), learn_threshold=True, **o
        ),
        IzhikevichEquation,
        resets=("zero",),
        many=False,
        scale=60.0,
    ),
    "Recurrent, one to one": Case(
        lambda **o: Recurrent(LIF(0.8, learn_beta=True, **o), OneToOne(weight=-0.4)), SelfConnectedEquation
    ),
}


@st.composite
def rules(draw: st.DrawFn, case: Case) -> Rule:
    reset = draw(st.sampled_from(case.resets))
    delay = draw(st.sampled_from(case.delays))
    return Rule(
        reset=reset,
        v_reset=(draw(st.sampled_from([0.0, -0.25])) if case.many else -65.0) if reset == "zero" else 0.0,
        delay=delay,
        clears_input=delay and reset == "zero" and draw(st.booleans()),
        detach=draw(st.booleans()),
        fire_op=draw(st.sampled_from([">=", ">"])),
        levels=draw(st.sampled_from([1, 2, None])) if case.many else 1,
        gain=draw(st.sampled_from([None, 0.5, -2.0])),
    )


def double(case: Case, rule: Rule) -> Neuron:
    """The neuron with float64 numbers from the start, not rounded to float32 on the way."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return case.make(**rule.options())
    finally:
        torch.set_default_dtype(before)


def numbers(neuron: Neuron) -> Dict[str, torch.Tensor]:
    """The neuron's own numbers by name, whether it is wrapped or not."""
    named = {**dict(neuron.named_parameters()), **dict(neuron.named_buffers())}
    return {name[len("neuron.") :] if name.startswith("neuron.") else name: value for name, value in named.items()}


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_values_and_gradients_are_those_of_the_equation(name: str, data: st.DataObject, seed: int) -> None:
    case = CASES[name]
    rule = data.draw(rules(case))
    rng = np.random.default_rng(seed)
    xs = case.scale * (rng.normal(size=STEPS) + 0.3)
    pull_out, pull_state = rng.normal(size=STEPS), rng.normal(size=4)

    neuron = double(case, rule)
    x = torch.tensor(xs).reshape(STEPS, 1, 1).requires_grad_()
    out, state = neuron.unroll(x)
    goal = (out.flatten() * torch.tensor(pull_out)).sum()
    goal = goal + sum(float(pull) * tensor.sum() for pull, tensor in zip(pull_state, state))
    goal.backward()

    held = numbers(neuron)
    learnt = [key for key, value in held.items() if isinstance(value, torch.nn.Parameter)]
    width = STEPS + len(learnt)
    p: Dict[str, Number] = {
        key: Dual(value.item(), np.eye(width)[STEPS + learnt.index(key)] if key in learnt else np.zeros(width))
        for key, value in held.items()
    }
    wanted_out, wanted_state = case.equation(p, rule).run([Dual(v, np.eye(width)[t]) for t, v in enumerate(xs)])
    total = sum((float(pull) * o for pull, o in zip(pull_out, wanted_out)), Dual(0.0, np.zeros(width)))
    total = sum((float(pull) * s for pull, s in zip(pull_state, wanted_state)), total)

    # float64: only the order of additions differs
    np.testing.assert_allclose(out.detach().flatten(), [o.value for o in wanted_out], rtol=0, atol=1e-12)
    got_state = [tensor.item() for tensor in state]
    np.testing.assert_allclose(got_state, [s.value for s in wanted_state], rtol=1e-9, atol=1e-9 * case.scale)
    gradient = [*x.grad.flatten().tolist(), *(held[key].grad.item() for key in learnt)]  # type: ignore[union-attr]
    np.testing.assert_allclose(gradient, total.slopes, rtol=1e-7, atol=1e-9 * max(1.0, np.abs(total.slopes).max()))


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_sees_spikes(name: str) -> None:
    case = CASES[name]
    rule = Rule(reset=case.resets[0], v_reset=0.0 if case.many else -65.0)
    neuron = double(case, rule)
    x = case.scale * (torch.randn(STEPS, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3)
    rate = neuron(x).ne(0).double().mean().item()
    assert 0.02 < rate < 0.9


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    threshold=st.sampled_from([0.0, 0.2, 1.0]),
    sigma=st.booleans(),
    rectify=st.booleans(),
    bias=st.sampled_from([None, -0.3, 0.4]),
)
def test_sigma_delta_follows_its_equation(
    seed: int, threshold: float, sigma: bool, rectify: bool, bias: Optional[float]
) -> None:
    xs = np.random.default_rng(seed).normal(size=STEPS)
    total, sent, wanted = 0.0, 0.0, []
    for x in xs:
        total = total + x if sigma else x
        a = total + (bias or 0.0)
        a = max(a, 0.0) if rectify else a
        change = a - sent
        out = change if abs(change) >= threshold else 0.0
        sent += out
        wanted.append(out)
    neuron = SigmaDelta(threshold, bias=bias, sigma=sigma, rectify=rectify).double()
    neuron.threshold.fill_(threshold)
    if bias is not None:
        neuron.bias.fill_(bias)
    out, state = neuron.unroll(torch.tensor(xs).reshape(STEPS, 1, 1))
    np.testing.assert_allclose(out.flatten(), wanted, rtol=0, atol=1e-12)
    assert state[0].item() == pytest.approx(total, abs=1e-12)
    assert state[1].item() == pytest.approx(sent, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_the_leaky_integrator_follows_its_equation(seed: int) -> None:
    xs = np.random.default_rng(seed).normal(size=STEPS)
    neuron = LI(torch.tensor(0.85, dtype=torch.float64), learn_beta=True)
    x = torch.tensor(xs).reshape(STEPS, 1, 1).requires_grad_()
    out, _ = neuron.unroll(x)
    # m[t] = sum over s <= t of beta^(t-s) x[s]
    powers = [[0.85 ** (t - s) if s <= t else 0.0 for s in range(STEPS)] for t in range(STEPS)]
    np.testing.assert_allclose(out.detach().flatten(), np.array(powers) @ xs, rtol=0, atol=1e-12)
    out.sum().backward()
    np.testing.assert_allclose(x.grad.flatten(), np.array(powers).sum(0), rtol=1e-12)  # type: ignore[union-attr]
    slope = [[(t - s) * 0.85 ** (t - s - 1) if s < t else 0.0 for s in range(STEPS)] for t in range(STEPS)]
    assert neuron.beta.grad.item() == pytest.approx(float((np.array(slope) @ xs).sum()), abs=1e-10)  # type: ignore[union-attr]
