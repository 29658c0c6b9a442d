"""Optimisers: their arithmetic against torch's, what is a constant, and where their state lives."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

X, Y = torch.linspace(-1, 1, 96).reshape(24, 4).sin(), torch.arange(24) % 3


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x, y):
        out = self.net(x)
        return out, functional.cross_entropy(out, y)


def weights(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()]).as_subclass(torch.Tensor)


def on_torch(kind, steps=3, clip=None, **arguments):
    """The weights after `steps` updates on the whole batch in torch's eager mode, in float64."""
    model = Model().double()
    optimizer = kind(model.parameters(), **arguments)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X.double(), Y)[1].backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return weights(model).float()


def on_device(poptorch, kind, steps=3, options=None, **arguments):
    model = Model()
    executor = poptorch.trainingModel(model, options, getattr(poptorch.optim, kind)(model.parameters(), **arguments))
    for _ in range(steps):
        executor(X, Y)
    return weights(model)


CASES = [
    ("SGD", {"lr": 0.3}),
    ("SGD", {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": True}),
]


@pytest.mark.parametrize(("kind", "arguments"), CASES, ids=[f"{kind}-{len(values)}" for kind, values in CASES])
def test_each_optimiser_agrees_with_torchs(poptorch, kind, arguments):
    expected = on_torch(getattr(torch.optim, kind), **arguments)
    # float32 against float64 over three updates
    assert torch.allclose(on_device(poptorch, kind, **arguments), expected, atol=1e-5)


@pytest.mark.parametrize(("iterations", "replicas", "accumulation"), [(1, 1, 4), (1, 4, 1), (1, 2, 3), (1, 3, 2)])
def test_accumulation_and_replicas_are_the_joint_batch(poptorch, iterations, replicas, accumulation):
    options = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas).autoRoundNumIPUs(True)
    options.Training.gradientAccumulation(accumulation)
    found = on_device(poptorch, "SGD", options=options, lr=0.3, momentum=0.9)
    assert torch.allclose(found, on_torch(torch.optim.SGD, lr=0.3, momentum=0.9), atol=1e-5)


def test_device_iterations_are_updates_of_their_own(poptorch):
    found = on_device(poptorch, "SGD", 1, poptorch.Options().deviceIterations(3), lr=0.3)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for x, y in zip(X.chunk(3), Y.chunk(3)):
        optimizer.zero_grad()
        model(x, y)[1].backward()
        optimizer.step()
    assert torch.allclose(found, weights(model), atol=1e-6)


def test_reduction_sum_adds_the_micro_batches_gradients(poptorch):
    options = poptorch.Options()
    options.Training.gradientAccumulation(4).accumulationAndReplicationReductionType(poptorch.ReductionType.Sum)
    found = on_device(poptorch, "SGD", options=options, lr=0.1)
    assert torch.allclose(found, on_torch(torch.optim.SGD, lr=0.4), atol=1e-5)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_max_grad_norm_clips_as_torch_does(poptorch, kind):
    expected = on_torch(getattr(torch.optim, kind), clip=0.05, lr=0.1)
    assert torch.allclose(on_device(poptorch, kind, lr=0.1, max_grad_norm=0.05), expected, atol=1e-4)


def test_rmsprop_and_lamb_have_no_max_grad_norm(poptorch):
    for kind in ("RMSprop", "LAMB"):
        with pytest.raises(TypeError, match="max_grad_norm"):
            getattr(poptorch.optim, kind)(Model().parameters(), max_grad_norm=1.0)


class Scalar(nn.Module):
    """One weight of value 2 with the gradient `slope`."""

    def __init__(self, poptorch, slope, dtype=torch.float32):
        super().__init__()
        self.poptorch, self.slope = poptorch, slope
        self.weight = nn.Parameter(torch.full((1,), 2.0, dtype=dtype))

    def forward(self, x):
        return self.poptorch.identity_loss((self.weight * self.slope * x).sum(), "none")


def scalar_step(poptorch, optimizer, slope, dtype=torch.float32, **arguments):
    model = Scalar(poptorch, slope, dtype)
    optimizer = getattr(poptorch.optim, optimizer)(model.parameters(), **arguments)
    poptorch.trainingModel(model, optimizer=optimizer)(torch.ones(1, dtype=dtype))
    return model.weight.item()


def test_the_tensorflow_variant_of_rmsprop_is_by_its_equation(poptorch):
    found = scalar_step(poptorch, "RMSprop", 3.0, lr=0.1, alpha=0.9, eps=0.5, use_tf_variant=True)
    # the average starts at 1 and eps is inside the root: 2 - 0.1 * 3 / sqrt(0.9 + 0.1 * 9 + 0.5)
    assert found == pytest.approx(2 - 0.3 / 2.3**0.5, rel=1e-6)


def test_lamb_is_by_its_equation(poptorch):
    found = scalar_step(poptorch, "LAMB", 3.0, lr=0.1, weight_decay=0.5, eps=0.0)
    # the corrected step is 1 + 0.5 * 2 = 2, its trust ratio min(|w|, max) / |step| = 2 / 2
    assert found == pytest.approx(2 - 0.1 * 2, rel=1e-6)


def test_loss_scaling_leaves_float32_as_it_was(poptorch):
    scaled = on_device(poptorch, "SGD", lr=0.3, loss_scaling=1024.0)
    assert torch.equal(scaled, on_device(poptorch, "SGD", lr=0.3))


def test_a_half_gradient_that_underflows_is_saved_by_loss_scaling(poptorch):
    # the least half number is 2**-24: a gradient of 2**-26 is lost
    for scaling, expected in ((1.0, 2.0), (4096.0, 1.5)):
        found = scalar_step(poptorch, "SGD", 2.0**-26 * 1.0, torch.float16, lr=2.0**25, loss_scaling=scaling)
        assert found == expected


def test_half_accumulators_lose_what_they_cannot_hold(poptorch):
    def run(dtype):
        model = Scalar(poptorch, 1.0)
        optimizer = poptorch.optim.SGD(model.parameters(), lr=1.0, accum_type=dtype)
        options = poptorch.Options()
        options.Training.gradientAccumulation(2).accumulationAndReplicationReductionType(poptorch.ReductionType.Sum)
        poptorch.trainingModel(model, options, optimizer)(torch.tensor([2048.0, 1.0]))
        return model.weight.item()

    assert run(torch.float32) == 2 - 2049
    assert run(torch.float16) == 2 - 2048


def executor_of(poptorch, optimizer=None, **arguments):
    model = Model()
    kind = optimizer or poptorch.optim.SGD
    optimizer = kind(model.parameters(), **arguments)
    return model, poptorch.trainingModel(model, optimizer=optimizer), optimizer


def change(model, executor):
    before = weights(model)
    executor(X, Y)
    return weights(model) - before


def test_another_rate_without_set_optimizer_changes_nothing(poptorch):
    model, executor, optimizer = executor_of(poptorch, lr=0.1)
    executor(X, Y)
    optimizer.param_groups[0]["lr"] = 0.0
    assert change(model, executor).abs().max() > 0
    executor.setOptimizer(optimizer)
    assert change(model, executor).abs().max() == 0


def test_the_python_step_never_runs(poptorch):
    model, executor, optimizer = executor_of(poptorch, lr=0.1)
    optimizer.step = None
    assert change(model, executor).abs().max() > 0


def test_what_was_left_at_its_default_is_a_constant(poptorch):
    _, executor, optimizer = executor_of(poptorch, lr=0.1)
    assert optimizer.variable_attrs.isConstant("weight_decay")
    assert not optimizer.variable_attrs.isConstant("lr")
    executor(X, Y)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(poptorch.Error, match=r"not a valid replacement.*'weight_decay' is a constant"):
        executor.setOptimizer(optimizer)


def test_an_adam_whose_rate_was_not_given_cannot_change_it(poptorch):
    _, executor, optimizer = executor_of(poptorch, poptorch.optim.Adam)
    executor(X, Y)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(poptorch.Error, match="'lr' is a constant"):
        executor.setOptimizer(optimizer)


def test_what_is_marked_as_variable_may_change(poptorch):
    model, executor, optimizer = executor_of(poptorch, lr=0.1)
    optimizer.variable_attrs.markAsVariable("weight_decay")
    executor.setOptimizer(optimizer)
    executor(X, Y)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    optimizer.param_groups[0]["lr"] = 1.0
    executor.setOptimizer(optimizer)
    before, grown = weights(model), copy.deepcopy(model)
    moved = change(model, executor)
    grown(X, Y)[1].backward()
    gradient = torch.cat([value.grad.flatten() for value in grown.parameters()])
    assert torch.allclose(moved, -gradient - 0.5 * before, atol=1e-6)


def test_what_is_marked_as_constant_may_not_change(poptorch):
    _, executor, optimizer = executor_of(poptorch, lr=0.1)
    optimizer.variable_attrs.markAsConstant("lr")
    executor.setOptimizer(optimizer)
    executor(X, Y)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(poptorch.Error, match="'lr' is a constant"):
        executor.setOptimizer(optimizer)


def test_an_attribute_that_does_not_exist_cannot_be_marked(poptorch):
    with pytest.raises(AssertionError, match="Unknown attribute beta"):
        poptorch.optim.SGD(Model().parameters(), lr=0.1).variable_attrs.markAsVariable("beta")


def test_loss_scaling_is_a_constant_unless_it_was_given(poptorch):
    for given, constant in (({}, True), ({"loss_scaling": 8.0}, False)):
        optimizer = poptorch.optim.SGD(Model().parameters(), lr=0.1, **given)
        assert optimizer.variable_attrs.isConstant("loss_scaling") == constant


def test_torchs_optimisers_are_taken_and_their_rate_may_change(poptorch):
    model, executor, optimizer = executor_of(poptorch, torch.optim.SGD, lr=0.1)
    executor(X, Y)
    optimizer.param_groups[0]["lr"] = 0.0
    executor.setOptimizer(optimizer)
    assert change(model, executor).abs().max() == 0


def test_torchs_optimisers_have_constants_too(poptorch):
    _, executor, optimizer = executor_of(poptorch, torch.optim.SGD, lr=0.1)
    executor(X, Y)
    optimizer.param_groups[0]["momentum"] = 0.5
    with pytest.raises(poptorch.Error, match="not a valid replacement"):
        executor.setOptimizer(optimizer)


def test_other_optimisers_are_refused(poptorch):
    with pytest.raises(AssertionError, match="Unsupported optimizer type"):
        executor_of(poptorch, torch.optim.Adagrad, lr=0.1)


def test_another_kind_of_optimiser_cannot_follow(poptorch):
    model, executor, _ = executor_of(poptorch, lr=0.1)
    executor(X, Y)
    with pytest.raises(poptorch.Error, match="Optimizer types do not match"):
        executor.setOptimizer(poptorch.optim.Adam(model.parameters(), lr=0.1))


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_amsgrad_is_refused(poptorch, kind):
    with pytest.raises(ValueError, match="Only non-amsgrad"):
        executor_of(poptorch, getattr(poptorch.optim, kind), amsgrad=True)


def test_nesterov_is_refused(poptorch):
    with pytest.raises(ValueError, match="Nesterov"):
        executor_of(poptorch, lr=0.1, momentum=0.9, dampening=0.0, nesterov=True)


def test_accumulators_are_of_single_or_half_precision(poptorch):
    with pytest.raises(AssertionError, match="Accumulation types"):
        poptorch.optim.SGD(Model().parameters(), lr=0.1, accum_type=torch.float64)


def test_the_state_is_under_ipu_state_and_ipu_param(poptorch):
    _, executor, optimizer = executor_of(poptorch, poptorch.optim.Adam, lr=0.1)
    assert optimizer.state_dict()["ipu_state"] is None
    executor(X, Y)
    state = optimizer.state_dict()
    assert len(state["ipu_state"]) == 3 * 4
    assert state["ipu_param"] is not None
    assert state["state"] == {}


def test_a_state_of_torch_is_refused(poptorch):
    _, _, optimizer = executor_of(poptorch, poptorch.optim.Adam, lr=0.1)
    with pytest.raises(RuntimeError, match="Only IPU optimizer states"):
        optimizer.load_state_dict(torch.optim.Adam(Model().parameters()).state_dict())


def test_training_goes_on_from_a_saved_state_as_if_it_had_not_stopped(poptorch):
    model, executor, optimizer = executor_of(poptorch, poptorch.optim.Adam, lr=0.1)
    executor(X, Y)
    saved, kept = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(executor.state_dict())
    executor(X, Y)
    other, again, resumed = executor_of(poptorch, poptorch.optim.Adam, lr=0.1)
    again.load_state_dict(kept)
    resumed.load_state_dict(saved)
    again(X, Y)
    assert torch.equal(weights(other), weights(model))


def test_without_an_optimiser_training_takes_sgd_with_rate_one_hundredth(poptorch):
    model = Model()
    poptorch.trainingModel(model)(X, Y)
    assert torch.allclose(weights(model), on_torch(torch.optim.SGD, 1, lr=0.01), atol=1e-6)


def test_groups_have_their_own_rates(poptorch):
    model = Model()
    groups = [{"params": model.net[0].parameters()}, {"params": model.net[2].parameters(), "lr": 0.0}]
    executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(groups, lr=0.1))
    last = model.net[2].weight.detach().clone()
    assert change(model, executor).abs().max() > 0
    assert torch.equal(model.net[2].weight.detach(), last)


def test_a_parameter_without_gradient_or_without_optimiser_stays(poptorch):
    model = Model()
    model.net[0].weight.requires_grad_(False)
    optimizer = poptorch.optim.SGD([model.net[0].weight, model.net[2].weight], lr=0.1)
    kept = [model.net[0].weight.detach().clone(), model.net[2].bias.detach().clone()]
    poptorch.trainingModel(model, optimizer=optimizer)(X, Y)
    assert torch.equal(model.net[0].weight.detach(), kept[0])
    assert torch.equal(model.net[2].bias.detach(), kept[1])
