"""A model is cut in time only where its pieces give what the whole sequence gives."""

from typing import Any, Optional

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core.errors import ConfigError
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.step import Step


def spec(dtype: str = "float32", steps: int = 11) -> BatchSpec:
    return BatchSpec(4, TensorSpec((steps, 5), dtype, time_axis=1), TensorSpec((), "int64"))


def validate(model: nn.Module, *, every: Optional[int] = None, chunk: Optional[int] = None, **changed: Any) -> None:
    Step(model, snn.CountCrossEntropy()).validate(spec(**changed), chunk, every)


class Net(nn.Module):
    """`[T, B, 5]` -> `[T, B, 3]`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.neuron = nn.Linear(5, 6), snn.LIF(0.9)
        self.leave, self.readout = nn.Linear(6, 3), snn.LI(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.leave(self.between(self.enter(x))))

    def between(self, x: Tensor) -> Tensor:
        return self.neuron(x)


class BySteps(Net):
    def between(self, x: Tensor) -> Tensor:
        state, outs = None, []
        for x_t in x.unbind(0):
            out, state = self.neuron.step(x_t, state)
            outs.append(out)
        return torch.stack(outs)


class ByUnroll(Net):
    def between(self, x: Tensor) -> Tensor:
        return self.neuron.unroll(x)[0]


class Delayed(Net):
    def between(self, x: Tensor) -> Tensor:
        return self.neuron(torch.cat((torch.zeros_like(x[:1]), x[:-1])))


class Centred(Net):
    def between(self, x: Tensor) -> Tensor:
        return self.neuron(x - x.mean(0))


class SinglePrecision(Net):
    """Makes a tensor of its own, with which a network in double precision does not run."""

    def between(self, x: Tensor) -> Tensor:
        return self.neuron(x @ torch.eye(6))


class SinglePrecisionBySteps(BySteps):
    def between(self, x: Tensor) -> Tensor:
        return super().between(x @ torch.eye(6))


class Noisy(Net):
    def between(self, x: Tensor) -> Tensor:
        return self.neuron(x + torch.rand_like(x))


class NoisyBySteps(BySteps):
    def between(self, x: Tensor) -> Tensor:
        return super().between(x + torch.rand_like(x))


class Whole(Net):
    def between(self, x: Tensor) -> Tensor:
        assert len(x) > 7
        return self.neuron(x)


class Counting(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def between(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.neuron(x)


@pytest.mark.parametrize("setting", ["every", "chunk"])
@pytest.mark.parametrize("model", [BySteps, ByUnroll, SinglePrecisionBySteps, NoisyBySteps])
def test_a_loop_that_hands_no_state_on_is_refused_with_the_layer_s_name(model: Any, setting: str) -> None:
    with pytest.raises(ConfigError, match="runs layer 'neuron' in a loop of its own"):
        validate(model(), **{setting: 4})


@pytest.mark.parametrize("setting", ["every", "chunk"])
@pytest.mark.parametrize("model", [Delayed, Centred])
def test_a_model_that_looks_at_other_steps_is_refused(model: Any, setting: str) -> None:
    with pytest.raises(ConfigError, match="output in pieces is not that of the whole sequence"):
        validate(model(), **{setting: 4})


@pytest.mark.parametrize("setting", ["every", "chunk"])
def test_a_model_that_cannot_take_a_piece_is_refused_with_its_reason(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot run so many steps of the sequence \(AssertionError"):
        validate(Whole(), **{setting: 4})


@pytest.mark.parametrize("every", [4, 11, 20])
def test_what_writes_a_buffer_in_training_is_not_computed_twice(every: int) -> None:
    with pytest.raises(ConfigError, match="in training the model writes its buffer 'calls'"):
        validate(Counting(), every=every)


@pytest.mark.parametrize("setting", ["every", "chunk"])
@pytest.mark.parametrize("model", [Net, SinglePrecision, Noisy])
def test_layers_that_hand_their_state_on_may_be_cut(model: Any, setting: str) -> None:
    validate(model(), **{setting: 4})


@pytest.mark.parametrize("setting", ["every", "chunk"])
def test_a_sequence_that_is_one_piece_is_not_tried(setting: str) -> None:
    validate(Centred(), **{setting: 11})


def test_indices_are_tried_with_the_first_one() -> None:
    class Embedded(BySteps):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Embedding.from_pretrained(torch.full((1, 6), 0.3))  # type: ignore[assignment]

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[..., 0])

    with pytest.raises(ConfigError, match="runs layer 'neuron' in a loop of its own"):
        validate(Embedded(), every=3, dtype="int64")


def test_trying_leaves_weights_buffers_and_random_numbers_alone() -> None:
    step = Step(Noisy(), snn.CountCrossEntropy())
    before = {name: value.clone() for name, value in step.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    step.validate(spec(), 4, 4)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, before[name]) for name, value in step.state_dict().items())
