"""Weights on the device and on the host, and what wrapping does to a model."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

X, Y = torch.linspace(-1, 1, 8).reshape(4, 2), torch.tensor([0, 1, 1, 0])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 2)

    def forward(self, x, y=None):
        out = self.layer(x)
        return out if y is None else (out, functional.cross_entropy(out, y))


def training(poptorch, model, lr=1.0):
    return poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=lr))


def test_looking_at_a_weight_copies_it_from_the_device(poptorch):
    model = Model()
    before = model.layer.weight.detach().clone()
    executor = training(poptorch, model)
    executor(X, Y)
    version = executor._host_weights_version
    assert not torch.equal(model.layer.weight.detach(), before)
    assert executor._host_weights_version == version + 1


def test_a_weight_changed_on_the_host_reaches_the_device_only_when_copied(poptorch):
    model = Model()
    executor = poptorch.inferenceModel(model)
    before = executor(X)
    with torch.no_grad():
        model.layer.weight.zero_()
        model.layer.bias.zero_()
    assert torch.equal(executor(X), before)
    executor.copyWeightsToDevice()
    assert torch.equal(executor(X), torch.zeros(4, 2))


def test_copying_to_the_device_overwrites_what_it_had_trained(poptorch):
    model = Model()
    executor = training(poptorch, model)
    executor.compile(X, Y)
    first = model.layer.weight.detach().clone()
    executor(X, Y)
    executor.copyWeightsToDevice()
    assert torch.equal(model.layer.weight.detach(), first)


def test_load_state_dict_of_the_executor_copies_to_the_device(poptorch):
    model = Model()
    executor = poptorch.inferenceModel(model)
    executor(X)
    executor.load_state_dict({"layer.weight": torch.zeros(2, 2), "layer.bias": torch.ones(2)})
    assert torch.equal(executor(X), torch.ones(4, 2))


def test_the_wrapped_models_own_parameters_become_another_class_and_stay_so_when_destroyed(poptorch):
    model = Model()
    executor = training(poptorch, model)
    assert type(model).__name__ == "PoptorchModel"
    executor(X, Y)
    executor.destroy()
    assert type(model) is Model
    assert type(model.layer.weight).__name__ == "PoptorchParameter"


def test_a_deep_copy_leaves_the_users_model_alone(poptorch):
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    executor = training(poptorch, copy.deepcopy(model))
    executor(X, Y)
    executor.copyWeightsToHost()
    assert type(model.layer.weight) is nn.Parameter
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_state_dict_of_a_wrapped_model_is_of_plain_tensors(poptorch):
    model = Model()
    executor = training(poptorch, model)
    executor(X, Y)
    assert {type(value) for value in executor.state_dict().values()} == {torch.Tensor}
    assert torch.equal(executor.state_dict()["layer.weight"], model.layer.weight.detach())


def test_a_wrapped_model_cannot_be_wrapped_again_until_it_is_destroyed(poptorch):
    model = Model()
    executor = training(poptorch, model)
    executor(X, Y)
    with pytest.raises(RuntimeError, match="already been wrapped"):
        training(poptorch, model)
    executor.destroy()
    training(poptorch, model)(X, Y)


def test_an_executor_that_was_never_compiled_leaves_its_model_wrapped_when_destroyed(poptorch):
    model = Model()
    training(poptorch, model).destroy()
    with pytest.raises(RuntimeError, match="already been wrapped"):
        training(poptorch, model)


def test_an_optimiser_of_another_models_parameters_is_refused_when_compiling(poptorch):
    optimizer = poptorch.optim.SGD(Model().parameters(), lr=1.0)
    with pytest.raises(KeyError):
        poptorch.trainingModel(Model(), optimizer=optimizer)(X, Y)


def test_inference_of_a_model_in_training_follows_its_weights(poptorch):
    model = Model()
    trainer, evaluator = training(poptorch, model), poptorch.inferenceModel(model)
    first = evaluator(X)
    trainer(X, Y)
    assert not torch.equal(evaluator(X), first)
    assert torch.allclose(evaluator(X), functional.linear(X, *[p.detach() for p in model.parameters()]))


def test_attaching_again_uploads_the_hosts_weights(poptorch):
    model = Model()
    executor = poptorch.inferenceModel(model)
    executor(X)
    executor.detachFromDevice()
    assert not executor.isAttachedToDevice()
    with torch.no_grad():
        model.layer.weight.zero_()
        model.layer.bias.fill_(2.0)
    assert torch.equal(executor(X), torch.full((4, 2), 2.0))


def test_detaching_brings_the_trained_weights_home_and_attaching_keeps_the_momentum(poptorch):
    def run(detach):
        model = Model()
        optimizer = poptorch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        executor = poptorch.trainingModel(model, optimizer=optimizer)
        executor(X, Y)
        if detach:
            executor.detachFromDevice()
            executor.attachToDevice()
        executor(X, Y)
        return model.layer.weight.detach().clone()

    assert torch.equal(run(True), run(False))


@pytest.mark.parametrize("method", ["copyWeightsToHost", "copyWeightsToDevice", "attachToDevice", "detachFromDevice"])
def test_what_needs_an_executable_says_that_there_is_none(poptorch, method):
    with pytest.raises(poptorch.Error, match="has not been compiled or has been destroyed"):
        getattr(poptorch.inferenceModel(Model()), method)()


def test_parameters_shared_by_two_layers_are_one_on_the_device(poptorch):
    def model():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        made[1].weight = made[0].weight
        return made

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model()

        def forward(self, x, y):
            return functional.cross_entropy(self.net(x), y)

    shared, ours = model(), Loss()
    executor = training(poptorch, ours)
    executor(X, Y)
    functional.cross_entropy(shared(X), Y).backward()
    expected = shared[0].weight - shared[0].weight.grad
    assert torch.allclose(ours.net[1].weight, expected)
    assert ours.net[1].weight is ours.net[0].weight


class Scaled(nn.Module):
    def __init__(self, persistent=True):
        super().__init__()
        self.register_buffer("factor", torch.full((2,), 2.0), persistent=persistent)

    def forward(self, x):
        return x * self.factor


def test_a_buffer_of_two_names_fails_in_the_clean_up_which_knows_parameters_alone(poptorch):
    shared = Scaled()
    with pytest.raises(KeyError, match=r"^'0\.factor'$"):
        poptorch.inferenceModel(nn.Sequential(shared, nn.Linear(2, 2), shared))(X)
    one, other = Scaled(), Scaled()
    other.factor = one.factor
    with pytest.raises(KeyError, match=r"^'0\.factor'$"):
        poptorch.inferenceModel(nn.Sequential(one, nn.Linear(2, 2), other))(X)


def test_a_buffer_of_two_names_that_is_in_no_state_dict_does_not_fail(poptorch):
    shared, layer = Scaled(persistent=False), nn.Linear(2, 2)
    model = nn.Sequential(shared, layer, shared)
    assert torch.allclose(poptorch.inferenceModel(model)(X), layer(X * 2).detach() * 2)


def test_a_layer_of_parameters_alone_may_stand_at_two_places(poptorch):
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert torch.allclose(poptorch.inferenceModel(model)(X), model(X).detach())
    assert model[2] is model[0]


def test_a_buffer_that_is_no_plain_tensor_is_refused(poptorch):
    model = Model()
    model.register_buffer("odd", nn.Parameter(torch.zeros(1), requires_grad=False))
    with pytest.raises(poptorch.Error, match=r"All buffers must be an instance of torch\.Tensor"):
        training(poptorch, model)
