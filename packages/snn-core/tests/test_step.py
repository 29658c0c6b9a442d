"""The step: what it returns, what it records, what it refuses, and that it leaves the user's model alone."""

import copy
import pickle
from dataclasses import dataclass
from typing import Dict, Mapping, Optional

import pytest
import torch
from torch import Tensor, nn

from snn_core.containers import Sequential
from snn_core.encoders import Constant
from snn_core.errors import ConfigError, ShapeError
from snn_core.losses import CountCrossEntropy, MaxMembraneCrossEntropy
from snn_core.neurons import LI, LIF
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.step import Step
from snn_core.terms import BoundTerm, Recorded, Term

SPEC = BatchSpec(4, TensorSpec((5,), "float32"), TensorSpec((), "int64"))


class Unwritten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def number(tensor: Tensor) -> float:
    return tensor.detach().item()


def network() -> Sequential:
    torch.manual_seed(0)
    return Sequential(Constant(steps=6), nn.Linear(5, 8), LIF(beta=0.8), nn.Linear(8, 3), LIF(beta=0.9))


def batch(size: int = 4):
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(size, 5, generator=generator), torch.arange(size) % 3


@dataclass(frozen=True)
class Spikes(Term):
    """The mean number of spikes of a sample over all neurons, times a weight."""

    name: str = "spikes"
    layers: bool = True

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": 0.5}

    def bind(self, model: nn.Module) -> "BoundSpikes":
        return BoundSpikes()


class BoundSpikes(BoundTerm):
    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        total = sum(call.out.transpose(0, 1).flatten(1).sum(1) for calls in recorded.neurons.values() for call in calls)
        return total.mean() if valid is None else (total * valid).sum() / valid.sum()

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return controls["weight"] * measure


def controls(step: Step) -> Dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in step.controls.items()}


def test_loss_and_accuracy_equal_those_of_the_output() -> None:
    step, (x, y) = Step(network(), CountCrossEntropy()), batch()
    out = step(x, y, {})
    counts = out.output.sum(0).double()
    expected = -(counts - counts.logsumexp(1, keepdim=True))[torch.arange(4), y].mean()
    assert number(out.loss) == pytest.approx(number(expected), rel=1e-6)
    assert number(out.correct) == number((counts.argmax(1) == y).sum())


def test_a_penalty_is_added_with_its_control_as_an_input() -> None:
    step, (x, y) = Step(network(), CountCrossEntropy(), [Spikes()]), batch()
    for weight in (0.5, 2.0):
        out = step(x, y, {"spikes.weight": torch.tensor(weight)})
        assert number(out.objective) == pytest.approx(number(out.loss) + weight * number(out.measures[0]), rel=1e-6)


def test_a_measure_counts_every_spike_of_every_neuron() -> None:
    step, (x, y) = Step(network(), CountCrossEntropy(), [Spikes()]), batch()
    model = network()
    hidden = model[2](model[1](x), steps=6)
    expected = (hidden.sum() + model[4](model[3](hidden)).sum()) / 4
    assert number(step(x, y, controls(step)).measures[0]) == pytest.approx(number(expected), rel=1e-6)


def test_invalid_samples_change_nothing() -> None:
    step, (x, y) = Step(network(), CountCrossEntropy(), [Spikes()]), batch()
    alone = step(x[:3], y[:3], controls(step))
    garbage = torch.cat([x[:3], torch.full((1, 5), 9.0)])
    padded = step(garbage, y, controls(step), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    for name in ("objective", "loss", "weight", "samples", "correct"):
        assert number(getattr(padded, name)) == pytest.approx(number(getattr(alone, name)), rel=1e-6), name
    assert number(padded.measures[0]) == pytest.approx(number(alone.measures[0]), rel=1e-6)


def test_a_loss_on_the_membrane_gets_the_readout_s_trace() -> None:
    net = Sequential(Constant(steps=6), nn.Linear(5, 8), LIF(), nn.Linear(8, 3), LI(beta=0.5))
    step, (x, y) = Step(net, MaxMembraneCrossEntropy()), batch()
    out = step(x, y, {})  # the readout's output is its membrane
    expected = nn.functional.cross_entropy(out.output.max(0).values, y)
    assert number(out.loss) == pytest.approx(number(expected), rel=1e-6)


def test_validation_leaves_traces_to_the_readout_alone() -> None:
    step = Step(network(), MaxMembraneCrossEntropy())
    step.validate(SPEC)
    assert [tap.wanted for tap in step.recorder.neurons.values()] == [(), ("mem",)]


def test_a_readout_without_the_needed_state_is_refused() -> None:
    net = Sequential(Constant(steps=6), nn.Linear(5, 3))
    with pytest.raises(ConfigError, match="no neuron ran"):
        Step(net, MaxMembraneCrossEntropy()).validate(SPEC)


def test_the_user_s_model_is_neither_trained_nor_tapped() -> None:
    model, (x, y) = network(), batch()
    before = copy.deepcopy(model.state_dict())
    step = Step(model, CountCrossEntropy(), [Spikes()])
    step(x, y, controls(step)).objective.backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(module.tap is None for module in model.modules() if isinstance(module, LIF))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_copies_of_a_step_give_the_same_and_leave_the_user_s_model_behind() -> None:
    step, (x, y) = Step(network(), MaxMembraneCrossEntropy(), [Spikes()]), batch()
    expected = step(x, y, controls(step)).objective
    for clone in (copy.deepcopy(step), pickle.loads(pickle.dumps(step)), copy.copy(step)):
        assert clone.source is None
        assert torch.equal(clone(x, y, controls(step)).objective, expected)


def test_no_activation_stays_alive_after_a_step() -> None:
    step, (x, y) = Step(network(), MaxMembraneCrossEntropy(), [Spikes()]), batch()
    step(x, y, controls(step))
    taps = [*step.recorder.neurons.values(), *step.recorder.layers.values()]
    assert len(taps) == 4
    assert not any(tap.calls for tap in taps)
    assert not step.recorder.ran


def test_nothing_of_one_batch_reaches_the_next() -> None:
    step, (x, y) = Step(network(), CountCrossEntropy()), batch()
    first = step(x, y, {}).output
    step(3 * x.flip(0), y, {})
    assert torch.equal(step(x, y, {}).output, first)


def test_a_sequence_in_pieces_with_states_handed_on_equals_the_whole() -> None:
    torch.manual_seed(0)
    net = Sequential(nn.Linear(5, 8), LIF(beta=0.8), nn.Linear(8, 3), LIF(beta=0.9))
    x, y = torch.rand(10, 4, 5) * 2, torch.arange(4) % 3
    step = Step(net, CountCrossEntropy())
    first = step(x[:4], y, {})
    second = step(x[4:], y, {}, None, first.states)
    assert torch.equal(torch.cat([first.output, second.output]), step(x, y, {}).output)


def test_validation_draws_no_random_number_and_changes_no_weight() -> None:
    net = Sequential(Constant(steps=3), nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Dropout(), LIF())
    step = Step(net, CountCrossEntropy())
    state, before = torch.get_rng_state(), copy.deepcopy(step.model.state_dict())
    assert step.validate(SPEC) == (3, 4, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in step.model.state_dict().items())
    assert step.training


def test_validation_runs_the_model_once() -> None:
    calls = []

    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    Step(Sequential(Constant(steps=3), Counted(5, 3), LIF()), MaxMembraneCrossEntropy(), [Spikes()]).validate(SPEC)
    assert len(calls) == 1


class Unfit(Exception):
    """What a backend's own way of running a layer fails with."""


def unfit(model: nn.Module, values: bool) -> None:
    raise Unfit


def test_what_fails_as_a_backend_runs_it_is_told_as_the_reference_fails() -> None:
    spec = BatchSpec(4, TensorSpec((7,), "float32"), SPEC.target)
    with pytest.raises(ShapeError, match="compare it with the size of its first layer"):
        Step(network(), CountCrossEntropy()).validate(spec, prepare=unfit)


def test_what_fails_as_a_backend_runs_it_alone_is_told_too() -> None:
    with pytest.raises(Unfit):
        Step(network(), CountCrossEntropy()).validate(SPEC, prepare=unfit)


def test_a_backend_prepares_copies_for_shapes_and_for_values() -> None:
    model, prepared = Sequential(nn.Linear(5, 3), LIF()), []
    step = Step(model, CountCrossEntropy())
    spec = BatchSpec(4, TensorSpec((6, 5), "float32", 1), SPEC.target)
    step.validate(spec, chunk=2, prepare=lambda copied, values: prepared.append((copied, values)))
    assert [values for _, values in prepared][:2] == [False, True]
    assert all(copied is not model and copied is not step.model for copied, _ in prepared)


def test_a_first_layer_of_another_size_is_refused_before_compile() -> None:
    with pytest.raises(ShapeError, match="compare it with the size of its first layer"):
        Step(network(), CountCrossEntropy()).validate(BatchSpec(4, TensorSpec((7,), "float32"), SPEC.target))


def test_a_forward_that_fails_without_a_word_is_told_by_its_error_s_kind() -> None:
    with pytest.raises(ShapeError, match=r"cannot take a batch of shape \(4, 2, 5\) \(float32\): NotImplementedError;"):
        Step(Unwritten(), CountCrossEntropy()).validate(BatchSpec(4, TensorSpec((4, 5), "float32", 1), SPEC.target))


def test_an_output_without_the_batch_is_refused() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean()

    with pytest.raises(ShapeError, match=r"must return \[T, B, ...\]"):
        Step(Mean(), lambda output, target: output[0]).validate(SPEC)


def test_a_weight_layer_that_never_runs_as_a_module_is_refused_where_a_term_counts_layers() -> None:
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(5, 3), LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(nn.functional.linear(x, self.fc.weight), steps=4)

    Step(Bypass(), CountCrossEntropy()).validate(SPEC)
    with pytest.raises(ConfigError, match="'fc' never ran as a module"):
        Step(Bypass(), CountCrossEntropy(), [Spikes()]).validate(SPEC)


def test_two_terms_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two terms are named 'spikes'"):
        Step(network(), CountCrossEntropy(), [Spikes(), Spikes()])


def test_layer_inputs_are_recorded_with_how_time_lies_in_them() -> None:
    seen = {}

    class Spy(Spikes):
        def bind(self, model: nn.Module) -> BoundSpikes:
            class Bound(BoundSpikes):
                def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
                    seen.update({n: (tuple(c[0].x.shape), *c[0].layout) for n, c in recorded.layers.items()})
                    return super().measure(recorded, valid)

            return Bound()

    step, (x, y) = Step(network(), CountCrossEntropy(), [Spy()]), batch()
    step(x, y, controls(step))
    assert seen == {"1": ((4, 5), "static", 6), "3": ((24, 8), "folded", 6)}


class Parts(Term):
    """The mean number of spikes of each neuron layer, a part each."""

    name = "parts"

    def bind(self, model: nn.Module) -> BoundTerm:
        return BoundParts()


class BoundParts(BoundTerm):
    parts = ("hidden", "readout")

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        return torch.stack([calls[0].out.sum() / calls[0].out.shape[1] for calls in recorded.neurons.values()])

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return measure[0] * measure[1]


def test_a_term_s_parts_are_measures_of_their_own_under_one_penalty() -> None:
    step, (x, y) = Step(network(), CountCrossEntropy(), [Spikes(), Parts()]), batch()
    out = step(x, y, controls(step))
    assert step.measure_names == ("spikes", "parts.hidden", "parts.readout")
    both, hidden, readout = (number(value) for value in out.measures)
    assert both == pytest.approx(hidden + readout, rel=1e-6)
    assert [penalty.ndim for penalty in out.penalties] == [0, 0]
    assert number(out.penalties[1]) == pytest.approx(hidden * readout, rel=1e-6)


def test_a_reduction_is_applied_to_measures_before_their_penalties() -> None:
    step, (x, y) = Step(network(), CountCrossEntropy(), [Parts()]), batch()
    plain = step(x, y, {})
    step.reduce = lambda measure, samples: measure * samples
    out = step(x, y, {})
    assert [number(m) for m in out.measures] == [pytest.approx(4 * number(m)) for m in plain.measures]
    assert number(out.penalties[0]) == pytest.approx(16 * number(plain.penalties[0]))


def test_a_layer_s_input_is_recorded_with_its_output_s_shape_and_may_be_a_keyword() -> None:
    seen = {}

    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(5, 3), LIF(beta=0.9)

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.fc(input=x))

    class Watching(BoundTerm):
        def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
            seen.update(recorded.layers)
            return recorded.output.sum()

        def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
            return 0 * measure

    class Watch(Spikes):
        def bind(self, model: nn.Module) -> BoundTerm:
            return Watching()

    x = torch.rand(6, 4, 5)
    Step(Keyword(), CountCrossEntropy(), [Watch()])(x, torch.arange(4) % 3, {})
    (call,) = seen["fc"]
    assert call.x is x
    assert call.out_shape == (6, 4, 3)
