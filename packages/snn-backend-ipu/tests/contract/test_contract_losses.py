"""Exactly one final loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional

X, Y = torch.linspace(-1, 1, 8).reshape(4, 2), torch.tensor([0, 1, 1, 0])


class Model(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.loss = loss

    def forward(self, x, y):
        out = self.layer(x)
        return out, self.loss(out, y)


def step(poptorch, loss):
    """The weight before and after a step of SGD with rate 1, the loss, and the gradient by torch on the host."""
    model = Model(loss)
    before = model.layer.weight.detach().clone()
    model(X, Y)[1].sum().backward()
    gradient = model.layer.weight.grad.clone()
    model.zero_grad()
    executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=1.0))
    value = executor(X, Y)[1]
    return before, model.layer.weight.detach().clone(), value, gradient


def test_without_a_loss_training_is_refused(poptorch):
    with pytest.raises(poptorch.Error, match="Couldn't find a loss"):
        step(poptorch, lambda out, y: out.square().mean())


def test_two_losses_are_refused(poptorch):
    def two(out, y):
        return functional.cross_entropy(out, y) + functional.mse_loss(out, torch.zeros_like(out))

    with pytest.raises(poptorch.Error, match="Multiple independent losses"):
        step(poptorch, two)


def test_a_builtin_loss_that_is_only_a_metric_counts_too(poptorch):
    def metric(out, y):
        return poptorch.identity_loss(out.square().mean(), "none"), functional.l1_loss(out, torch.zeros_like(out))

    with pytest.raises(poptorch.Error, match="Multiple independent losses"):
        poptorch.trainingModel(Model(metric))(X, Y)


def test_the_outermost_identity_loss_is_the_final_one(poptorch):
    def total(out, y):
        return poptorch.identity_loss(functional.cross_entropy(out, y) + out.square().mean(), "none")

    before, after, value, gradient = step(poptorch, total)
    assert torch.allclose(before - after, gradient)
    assert value.shape == ()


@pytest.mark.parametrize(
    "loss",
    [
        lambda out, y: functional.cross_entropy(out, y),
        lambda out, y: functional.nll_loss(functional.log_softmax(out, 1), y),
        lambda out, y: functional.mse_loss(out, torch.ones_like(out)),
        lambda out, y: functional.l1_loss(out, torch.ones_like(out)),
        lambda out, y: nn.BCEWithLogitsLoss()(out[:, 0], y.to(out.dtype)),
    ],
    ids=["cross_entropy", "nll", "mse", "l1", "bce"],
)
def test_a_builtin_loss_alone_trains_with_torchs_gradient(poptorch, loss):
    before, after, _, gradient = step(poptorch, loss)
    assert torch.allclose(before - after, gradient, atol=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_identity_loss_reduces_as_asked_and_none_sums_the_gradients(poptorch, reduction):
    before, after, value, gradient = step(poptorch, lambda out, y: poptorch.identity_loss(out.square(), reduction))
    assert value.shape == ((4, 2) if reduction == "none" else ())
    assert torch.allclose(before - after, gradient, atol=1e-6)


def test_inference_needs_no_loss(poptorch):
    assert poptorch.inferenceModel(Model(lambda out, y: out))(X, Y)[0].shape == (4, 2)


def test_backward_of_a_result_is_refused(poptorch):
    value = step(poptorch, functional.cross_entropy)[2]
    with pytest.raises(poptorch.Error, match="backward"):
        value.backward()
