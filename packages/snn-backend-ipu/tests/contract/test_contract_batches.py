"""How a call's batch is cut, what must stay as it was compiled, and what comes back."""

import pytest
import torch
from torch import nn

X = torch.arange(24.0).reshape(12, 2)


class Mean(nn.Module):
    """Returns its input, its mean and the sizes that forward saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return x + 0, x.mean()


def options_of(poptorch, iterations=1, replicas=1, accumulation=1, mode=None, period=None):
    options = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    options.Training.gradientAccumulation(accumulation)
    return options if mode is None else options.outputMode(mode, period)


class Loss(nn.Module):
    def __init__(self, poptorch):
        super().__init__()
        self.poptorch = poptorch
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x + 0, self.poptorch.identity_loss((x + self.weight).mean(), "none")


def train(poptorch, **counts):
    model = Loss(poptorch)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.0)
    return poptorch.trainingModel(model, options_of(poptorch, **counts), optimizer)(X)


def test_dim_0_of_every_input_is_cut_by_iterations_replicas_and_accumulation(poptorch):
    model = Mean()
    poptorch.inferenceModel(model, options_of(poptorch, iterations=3, replicas=2))(X)
    assert model.seen == [(2, 2)]


def test_a_time_major_input_is_cut_along_time(poptorch):
    # [T, B, N] with T = 12 samples in time: forward sees 4 of its 12 time steps
    model = Mean()
    poptorch.inferenceModel(model, options_of(poptorch, iterations=3))(X.reshape(12, 1, 2))
    assert model.seen == [(4, 1, 2)]


def test_a_batch_that_cannot_be_cut_is_refused(poptorch):
    with pytest.raises(AssertionError, match=r"deviceIterations\(5\)"):
        poptorch.inferenceModel(Mean(), options_of(poptorch, iterations=5))(X)


def test_a_zero_dimensional_input_is_refused_with_several_iterations(poptorch):
    class Scaled(nn.Module):
        def forward(self, x, factor):
            return x * factor

    assert torch.equal(poptorch.inferenceModel(Scaled())(X, torch.tensor(2.0)), 2 * X)
    with pytest.raises(AssertionError, match="Invalid batch dimension"):
        poptorch.inferenceModel(Scaled(), options_of(poptorch, iterations=2))(X, torch.tensor(2.0))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (X[:10], "Shape mismatch for x"),
        (torch.cat([X, X]), "Shape mismatch for x"),
        (X.long(), "Data type mismatch for x"),
        (X.half(), "Data type mismatch for x"),
        ([X], "Type mismatch for x"),
    ],
    ids=["short", "long", "int", "half", "list"],
)
def test_an_input_that_is_not_as_it_was_compiled_is_refused(poptorch, other, message):
    executor = poptorch.inferenceModel(Mean())
    executor(X)
    with pytest.raises(poptorch.Error, match=message):
        executor(other)


def test_arguments_are_those_of_forward(poptorch):
    executor = poptorch.inferenceModel(Mean())
    with pytest.raises(AssertionError, match="Too many arguments"):
        executor(X, X)
    with pytest.raises(AssertionError, match="not a valid parameter"):
        executor(y=X)
    with pytest.raises(poptorch.Error, match="Mandatory parameter x missing"):
        executor()


def test_inference_returns_everything_and_a_scalar_for_each_micro_batch(poptorch):
    out, means = poptorch.inferenceModel(Mean(), options_of(poptorch, iterations=3, replicas=2))(X)
    assert torch.equal(out, X)
    assert torch.equal(means, X.reshape(6, -1).mean(1))


def test_one_micro_batch_returns_a_scalar(poptorch):
    assert poptorch.inferenceModel(Mean())(X)[1].shape == ()


def test_training_returns_the_last_micro_batch_of_each_replica_unless_asked(poptorch):
    out, losses = train(poptorch, iterations=3, replicas=2, accumulation=2)
    assert torch.equal(out, X[-2:])
    assert torch.equal(losses, X[-2:].mean(1))


def test_output_mode_all_keeps_the_order_of_the_input(poptorch):
    out, losses = train(poptorch, iterations=3, replicas=2, accumulation=2, mode=poptorch.OutputMode.All)
    assert torch.equal(out, X)
    assert torch.equal(losses, X.mean(1))


def test_output_mode_sum_adds_up_iterations_and_accumulation_for_each_replica(poptorch):
    out, losses = train(poptorch, iterations=3, replicas=2, accumulation=2, mode=poptorch.OutputMode.Sum)
    assert torch.equal(out, torch.stack([X[0::2].sum(0), X[1::2].sum(0)]))
    assert torch.equal(losses, torch.stack([X[0::2].mean(1).sum(), X[1::2].mean(1).sum()]))


def test_output_mode_every_n_keeps_every_nth(poptorch):
    mode = poptorch.OutputMode.EveryN
    out, _ = train(poptorch, iterations=3, accumulation=4, mode=mode, period=4)
    assert torch.equal(out, X[3::4])
    with pytest.raises(poptorch.Error, match="multiple of the return period"):
        train(poptorch, iterations=3, accumulation=4, mode=mode, period=5)


def test_integers_and_doubles_come_back_narrow(poptorch):
    class Types(nn.Module):
        def forward(self, labels, x):
            return labels + 1, x + 1

    labels, values = poptorch.inferenceModel(Types())(torch.arange(3), torch.ones(3, dtype=torch.float64))
    assert labels.dtype == torch.int32
    assert values.dtype == torch.float32


def test_inference_refuses_accumulation(poptorch):
    with pytest.raises(poptorch.Error, match="gradientAccumulation to 1"):
        poptorch.inferenceModel(Mean(), options_of(poptorch, accumulation=2))


def test_results_are_the_callers_own(poptorch):
    executor = poptorch.inferenceModel(Mean())
    first = executor(X)[0]
    kept = first.clone()
    executor(X + 1)
    assert torch.equal(first, kept)
