"""Terms inside compiled steps: the conformance kit, torch's compilers and tracers, several processes.

`python test_backends.py RANK SHARES FOLDER` is one of the processes.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core import registry
from snn_core.distributed import GlobalMean
from snn_core.step import Step
from snn_core.testing import EVERY, Check
from snn_metrics import plugin, terms

OURS = [
    (check, case) for check in EVERY for case in check.names() if "metrics" in case
]  # the kit lists the examples of installed plugins' terms


def test_the_conformance_kit_knows_every_term_of_this_package() -> None:
    for name in plugin.snn_register_terms():
        assert any(case.startswith(f"{name} of ") for _, case in OURS), name


@pytest.mark.parametrize("check", [pytest.param(pair, id=f"{pair[0].name}-{pair[1]}") for pair in OURS])
def test_every_term_is_the_same_on_the_reference_backend(check: Tuple[Check, str]) -> None:
    backend = registry.load("eager")
    assert check[0](backend, check[1]) == "passed"


def network() -> snn.Sequential:
    torch.manual_seed(0)
    return snn.Sequential(
        snn.Constant(4), nn.Conv2d(1, 3, 3, padding=1), snn.LIF(beta=0.8), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(12, 3), snn.LIF(beta=0.9),
    )  # fmt: skip


def batch(size: int = 6) -> Tuple[Tensor, Tensor]:
    return 3 * torch.rand(size, 1, 4, 4, generator=torch.Generator().manual_seed(1)), torch.arange(size) % 3


def every_term() -> List[snn.Term]:
    return [
        terms.SynOpsBudget(target=50.0, per_layer={"5": 3.0}),
        terms.SpikeRate(low=0.9),
        terms.ActivityL1(),
        terms.MembraneBound(low=-0.1, high=0.3),
        terms.Silence(),
        terms.WeightSparsity(),
        terms.OperationCounts(),
    ]


def controls(step: Step) -> Dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in step.controls.items()}


def gradients(step: Step, objective: Tensor) -> List[Tensor]:
    return list(torch.autograd.grad(objective, list(step.model.parameters())))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_a_traced_step_measures_what_the_step_does() -> None:
    step = Step(network(), snn.CountCrossEntropy(), every_term())
    x, y = batch()
    values = controls(step)

    class Run(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = step

        def forward(self, x: Tensor, y: Tensor) -> Tuple[Tensor, ...]:
            out = self.step(x, y, values)
            return (out.objective, *out.measures)

    run = Run()
    traced = torch.jit.trace(run, (x, y), check_trace=False)
    other = 3 * torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    for got, want in zip(traced(other, y), run(other, y)):
        torch.testing.assert_close(got, want)


if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6):  # what `fullgraph` needs

    @pytest.mark.slow
    @pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
    def test_a_step_compiled_as_one_graph_gives_the_same_values_and_gradients(compiler: str) -> None:
        step = Step(network(), snn.CountCrossEntropy(), every_term())
        (x, y), values = batch(), controls(step)
        want = step(x, y, values)
        slopes = gradients(step, want.objective)
        out = torch.compile(step, fullgraph=True, backend=compiler)(x, y, values)
        for got, expected in zip(out.measures + out.penalties, want.measures + want.penalties):
            torch.testing.assert_close(got, expected)
        for got, expected in zip(gradients(step, out.objective), slopes):
            torch.testing.assert_close(got, expected)
        torch._dynamo.reset()


# how many samples each process has: uneven, and the 32 of one batch over eight
SHARES = {"two": (2, 4), "eight": (4,) * 8}


def share(name: str, rank: int) -> slice:
    start = sum(SHARES[name][:rank])
    return slice(start, start + SHARES[name][rank])


def joint(x: Tensor, y: Tensor, reduce: Any = None) -> Tuple[Tensor, List[Tensor]]:
    """The penalties of a batch, and their gradients alone."""
    step = Step(network().double(), snn.CountCrossEntropy(), every_term())
    step.reduce = reduce
    values = {name: value.double() for name, value in controls(step).items()}
    out = step(x.double(), y, values)
    total = torch.stack(out.penalties).sum()
    slopes = torch.autograd.grad(total, list(step.model.parameters()), allow_unused=True)
    return torch.stack(out.penalties).detach(), [s if s is not None else torch.zeros(1) for s in slopes]


def work(rank: int, name: str, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    shares = SHARES[name]
    init = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=len(shares))
    x, y = batch(sum(shares))
    torch.save(joint(x[share(name, rank)], y[share(name, rank)], GlobalMean()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARES)
def test_under_ddp_penalties_and_gradients_are_those_of_the_global_batch(name: str, tmp_path: Path) -> None:
    shares = SHARES[name]
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), name, str(tmp_path)]) for rank in range(len(shares))
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * len(shares)
    want, slopes = joint(*batch(sum(shares)))
    found = [torch.load(f"{tmp_path}/{rank}.pt") for rank in range(len(shares))]
    for penalties, _ in found:
        torch.testing.assert_close(penalties, want, rtol=1e-12, atol=1e-15)
    for index, expected in enumerate(slopes):
        mean = torch.stack([own[index] for _, own in found]).mean(0)  # as DistributedDataParallel takes it
        torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("term", "linear"),
    [(terms.ActivityL1(), True), (terms.SynOpsBudget(target=20.0, penalty="squared"), False)],
    ids=["linear", "squared"],
)
def test_eight_micro_batches_share_the_mean_measure_and_have_penalties_of_their_own(
    term: snn.Term, linear: bool
) -> None:
    """As documented: under accumulation a penalty is taken of each micro-batch's measure, and these are averaged."""
    x, y = batch(32)
    step = Step(network(), snn.CountCrossEntropy(), [term])
    whole, *parts = (
        step(x[part], y[part], controls(step)) for part in (slice(32), *(share("eight", i) for i in range(8)))
    )
    measures, penalties = (torch.stack([getattr(out, name)[0] for out in parts]) for name in ("measures", "penalties"))
    torch.testing.assert_close(measures.mean(), whole.measures[0])
    assert torch.allclose(penalties.mean(), whole.penalties[0], rtol=1e-6) is linear


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2], sys.argv[3])
