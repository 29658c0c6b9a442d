"""A forward in segments that backward computes again, against one that remembers everything."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core.errors import ConfigError
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.step import Step, StepOutput
from snn_core.testing.pieces import Activity, Drive, StateProbe

SPEC = BatchSpec(4, TensorSpec((11, 5), "float64", time_axis=1), TensorSpec((), "int64"))


class Counted(nn.Linear):
    """A layer that counts how often it ran."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).runs += 1
        return super().forward(x)


def network(kind: str = "plain") -> nn.Module:
    torch.manual_seed(0)
    hidden: Dict[str, List[nn.Module]] = {
        "plain": [snn.LIF(0.9, threshold=0.3)],
        "recurrent": [snn.Recurrent(snn.Synaptic(0.8, 0.9, threshold=0.3), nn.Linear(6, 6))],
        "lstm": [snn.SLSTM(6, 6, threshold=0.05)],
        "sliding": [snn.SlidingPSN(4, threshold=0.1)],
    }
    return snn.Sequential(Counted(5, 6), *hidden[kind], nn.Linear(6, 3), snn.LIF(0.9, threshold=0.2)).double()


def run(model: nn.Module, every: Any, loss: Any = None, terms: Any = ()) -> Tuple[StepOutput, Step]:
    step = Step(model, loss or snn.CountCrossEntropy(), terms)
    step.validate(SPEC, recompute_every=every)
    step.recompute_every = every
    x = torch.randn(11, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    controls = {name: torch.tensor(value, dtype=torch.float64) for name, value in step.controls.items()}
    out = step(x, torch.tensor([0, 1, 2, 0]), controls)
    out.objective.backward()
    return out, step


def require_same(kind: str, every: int, loss: Any = None, terms: Any = ()) -> None:
    (got, step), (want, whole) = (run(network(kind), n, loss, terms) for n in (every, None))
    assert torch.equal(got.output, want.output)
    torch.testing.assert_close(got.objective, want.objective, rtol=1e-12, atol=0.0)
    for one, other in zip((*got.measures, *got.penalties), (*want.measures, *want.penalties)):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0.0)
    for (name, a), (_, b) in zip(step.named_parameters(), whole.named_parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-13, msg=name)
    for one, other in zip(got.states, want.states):
        for mine, its in zip(one, other):
            # a product of fewer rows may add up in another order
            assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in zip(mine, its))


@pytest.mark.parametrize("every", [1, 3, 11, 20])
@pytest.mark.parametrize("kind", ["plain", "recurrent", "lstm", "sliding"])
def test_segments_give_the_whole_sequences_results_and_gradients(kind: str, every: int) -> None:
    require_same(kind, every)


@pytest.mark.parametrize("kind", ["plain", "recurrent"])
def test_terms_see_the_whole_sequence(kind: str) -> None:
    require_same(kind, 4, terms=(Activity(), Drive(), StateProbe(("mem",))))


def test_a_loss_sees_the_readouts_states_of_the_whole_sequence() -> None:
    require_same("plain", 4, loss=snn.MembraneCrossEntropy())


def test_dropout_drops_the_same_when_computed_again() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 6, bias=False).double()
    step = Step(snn.Sequential(linear, nn.Dropout(0.5), snn.LI(0.0)), snn.OutputMSE("steps"))
    step.recompute_every = 4
    x = torch.randn(11, 4, 5, dtype=torch.float64)
    out = step(x, torch.zeros(11, 4, 6, dtype=torch.float64), {})
    out.objective.backward()
    output = out.output.detach()
    by_linear = 2 * output / output.numel() * 2 * (output != 0)  # kept values are doubled
    expected = torch.einsum("tbo,tbi->oi", by_linear, x)
    got = next(step.model.parameters()).grad
    assert 0.3 < float((output == 0).double().mean()) < 0.7
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_every_segment_runs_once_forward_and_once_in_backward() -> None:
    Counted.runs = 0
    step = Step(network(), snn.CountCrossEntropy())
    step.recompute_every = 4
    out = step(torch.randn(11, 4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0]), {})
    assert Counted.runs == 3
    out.objective.backward()
    assert Counted.runs == 6


def test_without_gradients_the_sequence_runs_whole() -> None:
    Counted.runs = 0
    step = Step(network(), snn.CountCrossEntropy())
    step.recompute_every = 4
    with torch.no_grad():
        step(torch.randn(11, 4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0]), {})
    assert Counted.runs == 1


def test_what_is_remembered_does_not_grow_with_the_length_of_the_sequence_times_its_layers() -> None:
    remembered = []
    for every in (None, 16):
        hidden = [nn.Linear(4, 64), snn.LIF(0.9), nn.Linear(64, 64), snn.LIF(0.9)]
        step = Step(snn.Sequential(*hidden, nn.Linear(64, 2), snn.LI(0.9)), snn.OutputMSE("steps"))
        step.recompute_every = every
        kept: Dict[int, int] = {}

        def pack(tensor: Tensor, kept: Dict[int, int] = kept) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step(torch.randn(256, 8, 4), torch.zeros(256, 8, 2), {})
        remembered.append(sum(kept.values()))
    assert remembered[1] < remembered[0] / 10


GROWTH = """
import torch
from torch import nn
import snn_core as snn
from snn_core.eager import EagerBackend
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step

def peak_after(steps):
    hidden = [nn.Linear(4, 256), snn.LIF(0.9), nn.Linear(256, 256), snn.LIF(0.9)]
    model = snn.Sequential(*hidden, nn.Linear(256, 2), snn.LI(0.9))
    spec = BatchSpec(32, TensorSpec((steps, 4), "float32", time_axis=1), TensorSpec((), "int64"))
    step = Step(model, snn.MembraneCrossEntropy())
    program = EagerBackend().compile(step, snn.SGD(lr=0.1), spec, TrainSpec(recompute_every=16))
    program.train_step((torch.randn(32, steps, 4), torch.zeros(32, dtype=torch.int64)))
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

torch.set_num_threads(1)
before = peak_after(512)
print(peak_after(2048) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process's memory is read in /proc")
def test_the_process_grows_by_less_than_one_layers_sequence() -> None:
    told = subprocess.run([sys.executable, "-c", GROWTH], stdout=subprocess.PIPE, check=True, text=True)
    # a layer's spikes of the 1536 steps more; the whole network remembers several such tensors
    assert int(told.stdout) < 1536 * 32 * 256 * 4


def test_a_segments_gradient_reaches_the_input() -> None:
    gradients = []
    for every in (4, None):
        step = Step(network(), snn.CountCrossEntropy())
        step.recompute_every = every
        x = torch.randn(11, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
        step(x, torch.tensor([0, 1, 2, 0]), {}).objective.backward()
        gradients.append(x.grad)
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)


class Halves(nn.Module):
    """A product with the sum of two weights, whose gradients are one tensor; the third weight idles."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.idle = (nn.Parameter(0.3 * torch.randn(6, 5)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.one + self.other)


def test_weights_that_share_a_gradient_get_it_once_and_an_idle_one_none() -> None:
    def gradients(every: Any) -> List[Any]:
        torch.manual_seed(0)
        step = Step(snn.Sequential(Halves(), snn.LIF(0.9, threshold=0.2)).double(), snn.CountCrossEntropy())
        step.recompute_every = every
        x = torch.randn(11, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        step(x, torch.tensor([0, 1, 2, 0]), {}).objective.backward()
        return [parameter.grad for parameter in step.parameters()]

    (one, other, idle), (expected, _, _) = gradients(3), gradients(None)
    assert expected.abs().max() > 0
    assert idle is None
    for gradient in (one, other):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


def test_states_behind_a_frozen_layer_ask_for_no_gradient() -> None:
    model = network()
    model[0].requires_grad_(False)
    step = Step(model, snn.CountCrossEntropy())
    step.recompute_every = 4
    out = step(torch.randn(11, 4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0]), {})
    frozen, learnt = out.states
    assert not any(state.requires_grad for call in frozen for state in call)
    assert all(state.requires_grad for call in learnt for state in call)


def test_the_gradient_of_a_gradient_is_refused() -> None:
    step = Step(network(), snn.CountCrossEntropy())
    step.recompute_every = 4
    x = torch.randn(11, 4, 5, dtype=torch.float64, requires_grad=True)
    out = step(x, torch.tensor([0, 1, 2, 0]), {})
    (gradient,) = torch.autograd.grad(out.objective, x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def test_backward_draws_no_random_numbers_of_its_own() -> None:
    step = Step(snn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), snn.LI(0.5)), snn.OutputMSE("steps"))
    step.recompute_every = 4
    out = step(torch.randn(11, 4, 5), torch.zeros(11, 4, 6), {})
    before = torch.get_rng_state()
    out.objective.backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_backward_computes_again_in_the_precision_of_forward() -> None:
    seen: List[torch.dtype] = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    step = Step(snn.Sequential(Watched(5, 6), snn.LI(0.5)), snn.OutputMSE("steps"))
    step.recompute_every = 6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = step(torch.randn(11, 4, 5), torch.zeros(11, 4, 6), {})
    out.objective.backward()
    assert seen == [torch.bfloat16] * 4
    assert next(step.parameters()).grad.dtype == torch.float32


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(6), snn.PSN(11)], ids=lambda layer: type(layer).__name__)
def test_layers_that_need_the_whole_sequence_are_refused(layer: nn.Module) -> None:
    model = snn.Sequential(nn.Linear(5, 6), layer, snn.LIF(0.9))
    with pytest.raises(ConfigError, match="recompute_every is 4, but layer '1'"):
        Step(model, snn.CountCrossEntropy()).validate(SPEC, recompute_every=4)


def test_an_input_without_time_is_refused() -> None:
    model = snn.Sequential(snn.Constant(steps=3), nn.Linear(5, 6), snn.LIF(0.9))
    spec = BatchSpec(4, TensorSpec((5,), "float32"), TensorSpec((), "int64"))
    with pytest.raises(ConfigError, match="recompute_every is 4, but x has no time axis"):
        Step(model, snn.CountCrossEntropy()).validate(spec, recompute_every=4)
