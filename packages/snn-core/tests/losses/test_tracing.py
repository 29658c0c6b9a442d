"""What a backend needs of a loss: traced, it means the same on other data and holds nothing that a device refuses."""

import copy
import pickle

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from snn_core.losses import (
    TET,
    CountCrossEntropy,
    CountMSE,
    MaxMembraneCrossEntropy,
    MembraneCrossEntropy,
    MembraneMSE,
    OutputMAE,
    OutputMSE,
    RateCrossEntropy,
    RateMSE,
    SpikeRateL1,
    TemporalCrossEntropy,
    TemporalMSE,
)

WEIGHTS = (1.0, 0.5, 3.0)
LOSSES = [
    CountCrossEntropy(class_weights=WEIGHTS, population=2),
    RateCrossEntropy(population=2),
    CountMSE(correct_rate=0.8, incorrect_rate=0.1),
    RateMSE(population=2),
    TET(lam=0.1),
    MaxMembraneCrossEntropy(class_weights=WEIGHTS),
    MembraneCrossEntropy(),
    MembraneMSE(),
    TemporalMSE(tolerance=2),
    TemporalCrossEntropy(inverse="reciprocal"),
    OutputMSE("last"),
    OutputMAE("steps"),
    CountCrossEntropy() + 1e-3 * SpikeRateL1(),
]

# what PopTorch 3.4 lists as supported, and pure views, which it takes as they are
POPTORCH = """
    abs add amax amin arange argmax clamp detach div eq expand full_like gt log_softmax lt masked_fill mean mul ne neg
    ones_like pow reciprocal rsub select slice squeeze sub sum unsqueeze view where zeros_like
    _log_softmax _to_copy _unsafe_view alias
"""


@pytest.fixture(params=LOSSES, ids=str)
def case(request, make_batch):
    loss = request.param

    def batch(seed):
        data = make_batch(5, 4, 3, seed=seed, population=getattr(loss, "population", 1))
        target = data.labels
        if isinstance(loss, (OutputMSE, OutputMAE)):
            target = data.mem.float() if loss.readout == "steps" else data.mem[0].float()
        return data.spikes.float(), data.mem.float(), target, torch.tensor([1.0, 1.0, 0.0, 1.0])

    def step(output, mem, target, valid):
        correct = loss.correct(output, target, {"mem": mem})
        return (*loss.reduce(output, target, {"mem": mem}, valid), *(() if correct is None else (correct,)))

    return loss, step, batch


def assert_same(step, traced, batch):
    assert all(torch.equal(a, b) for a, b in zip(step(*batch), traced(*batch)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_jit_trace_keeps_the_meaning_and_warns_of_nothing(case):
    _, step, batch = case
    assert_same(step, torch.jit.trace(step, batch(0)), batch(1))


def test_make_fx_keeps_the_meaning(case):
    _, step, batch = case
    assert_same(step, make_fx(step)(*batch(0)), batch(1))


def test_compile_makes_one_whole_graph(case):
    _, step, batch = case
    torch._dynamo.reset()
    assert_same(step, torch.compile(step, fullgraph=True, backend="aot_eager"), batch(1))


def test_forward_and_backward_use_only_operations_that_poptorch_supports(case):
    _, step, batch = case

    def with_gradient(output, mem, target, valid):
        output, mem = output.requires_grad_(), mem.requires_grad_()
        value = step(output, mem, target, valid)[0]
        return value, torch.autograd.grad(value, (output, mem), allow_unused=True)

    output, mem, target, valid = batch(0)
    graph = make_fx(with_gradient)(output, mem, target, valid).graph
    forward = {
        str(node.target).split(".")[1] for node in make_fx(step)(*batch(0)).graph.nodes if node.op == "call_function"
    }
    everything = {str(node.target).split(".")[1] for node in graph.nodes if node.op == "call_function"}
    assert sorted(forward.difference(POPTORCH.split())) == []
    # no read of a value on the host, no torch loss, no constant copied from the host
    banned = (
        "_local_scalar_dense",
        "nll_loss",
        "mse_loss",
        "l1_loss",
        "item",
        "nonzero",
        "index_put",
        "_tensor_constant",
    )
    assert not [name for name in everything if name.startswith(banned)]
    assert not [node for node in graph.nodes if node.op == "get_attr"]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_loss_is_a_value_that_copies_pickles_and_hashes(loss):
    assert pickle.loads(pickle.dumps(loss)) == copy.deepcopy(loss) == loss
    assert len({loss, copy.deepcopy(loss)}) == 1
    with pytest.raises(AttributeError):
        loss.needs2 = 1
