"""What a forward that is traced once may do, and what the fake does with the rest."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

HOST = torch.ones(3)
X = torch.arange(12.0).reshape(4, 3) / 10 - 0.5


class Function(nn.Module):
    """A model made of one function and one weight, which starts at ones."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def infer(poptorch, function, x=X, options=None):
    return poptorch.inferenceModel(Function(function), options)(x)


def trained(poptorch, function):
    """The weight after one step of SGD with rate 1 on what `function` returns."""
    model = Function(function)
    wrapped = Function(lambda self, x: poptorch.identity_loss(function(self, x).sum(), "none"))
    wrapped.weight = model.weight
    poptorch.trainingModel(wrapped, optimizer=poptorch.optim.SGD(wrapped.parameters(), lr=1.0))(X)
    return wrapped.weight.detach().clone()


def test_forward_runs_once_for_all_calls_and_micro_batches(poptorch):
    executor = poptorch.inferenceModel(
        Function(lambda self, x: x * self.weight), poptorch.Options().deviceIterations(2)
    )
    for _ in range(3):
        executor(X)
    assert len(poptorch._contract.traces) == 1


def test_another_call_computes_with_its_own_values(poptorch):
    executor = poptorch.inferenceModel(Function(lambda self, x: x * self.weight + 1))
    executor(X)
    assert torch.equal(executor(2 * X), 2 * X + 1)


def test_a_plain_attribute_is_frozen_when_forward_is_traced(poptorch):
    model = Function(lambda self, x: x * self.factor)
    model.factor = 2.0
    executor = poptorch.inferenceModel(model)
    executor(X)
    executor._model.factor = model.factor = 5.0
    assert torch.equal(executor(X), 2 * X)


def test_an_attribute_set_after_wrapping_does_not_reach_the_copied_model(poptorch):
    model = Function(lambda self, x: x * self.factor)
    model.factor = 2.0
    executor = poptorch.inferenceModel(model)
    model.factor = 5.0
    assert torch.equal(executor(X), 2 * X)


def test_a_python_argument_must_stay_as_it_was_compiled(poptorch):
    class Scaled(nn.Module):
        def forward(self, x, factor):
            return x * factor

    executor = poptorch.inferenceModel(Scaled())
    assert torch.equal(executor(X, 2.0), 2 * X)
    with pytest.raises(poptorch.Error, match=r"Value mismatch for factor: expected 2\.0 but got 3\.0"):
        executor(X, 3.0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda self, x: x * x.sum().item(), "item"),
        (lambda self, x: x if x.sum() > 0 else -x, "control flow"),
        (lambda self, x: x * float(x.sum()), "value"),
        (lambda self, x: x[: int(x.sum())], "value"),
        (lambda self, x: x.cpu(), "Illegal move to CPU"),
        (lambda self, x: x.to("cpu") + 1, "Illegal move to CPU"),
        (lambda self, x: x.nonzero(), "depends on values"),
        (lambda self, x: x[x > 0], "tensor masks is unsupported"),
        (lambda self, x: x.clone().__setitem__((slice(None), self.weight > 0), 1.0), "tensor masks is unsupported"),
        (lambda self, x: x + HOST, "Expected an IPU tensor"),
        (lambda self, x: x + torch.from_numpy(np.ones(3, dtype="float32")), "Expected an IPU tensor"),
        (lambda self, x: x + torch.as_tensor(np.ones(3, dtype="float32")), "Expected an IPU tensor"),
        (lambda self, x: x @ torch.eye(3), "Expected an IPU tensor"),
        (lambda self, x: x + torch.Tensor([1.0, 2.0, 3.0]), "Expected an IPU tensor"),
        (lambda self, x: x + torch.ones(3, device="cpu"), "Expected an IPU tensor"),
        (lambda self, x: x + len(str(x)), "Illegal move to CPU"),
        (lambda self, x: nn.functional.one_hot(x.argmax(-1)), "num_classes must be given"),
        (lambda self, x: nn.functional.max_pool2d(x[None], 2, return_indices=True)[1], "return_indices"),
        (lambda self, x: nn.functional.nll_loss(x, x[:, 0].long() * 0, torch.ones_like(self.weight)), "each class"),
        (lambda self, x: nn.functional.cross_entropy(x, x.softmax(1), torch.ones_like(self.weight)), "each class"),
    ],
    ids=[
        "item",
        "if",
        "float",
        "slice",
        "cpu",
        "to",
        "nonzero",
        "mask",
        "mask-beside",
        "host",
        "numpy",
        "as-tensor",
        "eye",
        "constructor",
        "named-host",
        "text",
        "one-hot",
        "indices",
        "class-weight",
        "class-weight-of-shares",
    ],
)
def test_what_needs_a_value_or_the_host_is_refused(poptorch, function, message):
    with pytest.raises(poptorch.Error, match=message):
        infer(poptorch, function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ torch.eye(3, device=x.device),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x + torch.tensor(np.ones(3, dtype="float32")),
        lambda x: x + x.new_tensor([1.0, 2.0, 3.0]),
        lambda x: x[[2, 0]] + torch.full_like(x[:2], 0.5),
        lambda x: x + torch.distributions.Normal(torch.zeros(3), torch.ones(3)).mean,
    ],
    ids=["named", "tensor", "of-numpy", "new_tensor", "list", "distribution"],
)
def test_what_is_made_on_the_device_has_the_host_s_values(poptorch, function):
    assert torch.equal(infer(poptorch, lambda self, x: function(x)), function(X))


def test_the_functions_of_torch_are_its_own_again_after_a_trace(poptorch):
    before = {name: getattr(torch, name) for name in ("zeros", "tensor", "as_tensor", "normal")}
    validates = torch.distributions.Distribution._validate_args
    with pytest.raises(poptorch.Error):
        infer(poptorch, lambda self, x: x @ torch.eye(3))
    assert {name: getattr(torch, name) for name in before} == before
    assert torch.distributions.Distribution._validate_args == validates


@pytest.mark.parametrize("method", ["numpy", "tolist"])
def test_a_traced_tensor_gives_no_values_to_python(poptorch, method):
    with pytest.raises(RuntimeError, match=method):
        infer(poptorch, lambda self, x: x + torch.tensor(getattr(x, method)()))


@pytest.mark.parametrize("move", [lambda x: HOST.to(x.device), lambda x: HOST.to(x)])
def test_a_host_s_tensor_that_is_moved_is_a_constant_of_the_device(poptorch, move):
    assert torch.equal(infer(poptorch, lambda self, x: x + 2 * move(x)), X + 2)


def test_a_host_s_tensors_are_computed_on_the_host_and_moved_after_it(poptorch):
    assert torch.equal(infer(poptorch, lambda self, x: x + (HOST * 2 + HOST).to(x.device)), X + 3)


def test_one_hot_of_a_given_number_of_classes_is_torch_s(poptorch):
    out = infer(poptorch, lambda self, x: nn.functional.one_hot(x.argmax(-1), 3))
    assert torch.equal(out.long(), nn.functional.one_hot(X.argmax(-1), 3))


def test_a_write_by_a_mask_alone_is_a_choice_between_tensors(poptorch):
    def clipped(self, x):
        y = x.clone()
        y[x > 0] = 0.5
        return y

    assert torch.equal(infer(poptorch, clipped), torch.where(X > 0, torch.tensor(0.5), X))


def test_tensors_made_in_forward_are_the_devices(poptorch):
    out = infer(poptorch, lambda self, x: x + torch.zeros(3) + torch.tensor([1.0, 2.0, 3.0]) + torch.ones_like(x))
    assert torch.equal(out, X + torch.tensor([2.0, 3.0, 4.0]))


def test_a_tensor_kept_from_a_trace_cannot_be_used_after_it(poptorch):
    def keep(self, x):
        self.inner.state = x + 1
        return self.inner.state

    model = Function(keep)
    model.inner = nn.Identity()
    poptorch.inferenceModel(model)(X)
    with pytest.raises(poptorch.Error, match="after the trace"):
        model.inner.state + 1


class StraightThrough(torch.autograd.Function):
    """A step with the gradient of the identity."""

    @staticmethod
    def forward(ctx, u):
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_the_backward_of_a_custom_function_is_ignored_so_that_nothing_trains(poptorch):
    assert torch.equal(trained(poptorch, lambda self, x: StraightThrough.apply(x * self.weight)), torch.ones(3))


def test_the_same_slope_in_the_detach_form_trains(poptorch):
    def spike(self, x):
        u = x * self.weight
        return (u > 0).to(u.dtype).detach() + (u - u.detach())

    # d/dw of sum(x w) is the sum of x over the batch
    assert torch.allclose(trained(poptorch, spike), 1 - X.sum(0))


def test_detach_cuts_the_gradient(poptorch):
    assert torch.allclose(trained(poptorch, lambda self, x: x * self.weight * self.weight.detach()), 1 - X.sum(0))


def test_no_grad_in_forward_cuts_nothing(poptorch):
    def product(self, x):
        with torch.no_grad():
            frozen = self.weight * 1
        return x * self.weight * frozen

    # 2 w: the gradient that torch.no_grad would have halved
    assert torch.allclose(trained(poptorch, product), 1 - 2 * X.sum(0))


def test_data_in_forward_cuts_nothing(poptorch):
    assert torch.allclose(trained(poptorch, lambda self, x: x * self.weight * self.weight.data), 1 - 2 * X.sum(0))


def test_an_integer_buffer_is_a_constant(poptorch):
    model = nn.BatchNorm1d(3)
    executor = poptorch.inferenceModel(model.train())
    for _ in range(3):
        executor(X)
    executor.copyWeightsToHost()
    assert model.num_batches_tracked == 0
    assert not torch.equal(model.running_mean, torch.zeros(3))


def counting(self, x):
    self.count.add_(1.0)
    return x + self.count


def with_count(function):
    model = Function(function)
    model.register_buffer("count", torch.zeros(()))
    return model


def test_a_float_buffer_changed_in_place_persists_from_call_to_call(poptorch):
    executor = poptorch.inferenceModel(with_count(counting))
    executor(X)
    assert torch.equal(executor(X), X + 2)


def test_a_buffer_that_is_reassigned_is_refused(poptorch):
    def reassign(self, x):
        self.count = self.count + 1.0
        return x + self.count

    with pytest.raises(poptorch.Error, match="Buffer count is reassigned"):
        poptorch.inferenceModel(with_count(reassign))(X)


def test_a_changed_buffer_on_replicas_is_refused_unless_each_may_have_its_own(poptorch):
    with pytest.raises(poptorch.Error, match="broadcasting buffers"):
        poptorch.inferenceModel(with_count(counting), poptorch.Options().replicationFactor(2))(X)
    options = poptorch.Options().replicationFactor(2).broadcastBuffers(False).deviceIterations(2)
    out = poptorch.inferenceModel(with_count(counting), options)(X)
    # each replica counts its own micro-batches: two calls of it for the four of this call
    assert torch.allclose(out - X, torch.tensor([1.0, 1.0, 2.0, 2.0])[:, None])


def test_training_mode_is_read_at_the_first_call_and_not_seen_after(poptorch):
    model = nn.Sequential(nn.Dropout(0.999999)).eval()
    executor = poptorch.inferenceModel(model)
    assert torch.equal(executor(X), X)
    model.train()
    assert torch.equal(executor(X), X)


Pair = collections.namedtuple("Pair", "first second")


def test_nested_results_keep_their_structure_and_their_frozen_python_values(poptorch):
    out = infer(poptorch, lambda self, x: {"a": [x, 7], "b": Pair(x + 1, (x + 2,))})
    assert torch.equal(out["a"][0], X)
    assert out["a"][1] == 7
    assert torch.equal(out["b"].second[0], X + 2)


@dataclasses.dataclass
class Result:
    x: torch.Tensor


@pytest.mark.parametrize(
    ("function", "what"),
    [(lambda self, x: Result(x), "dataclass"), (lambda self, x: {}, "empty dict"), (lambda self, x: (x, {}), "empty")],
    ids=["dataclass", "empty-dict", "nested-empty-dict"],
)
def test_results_that_poptorch_does_not_take_apart_are_refused(poptorch, function, what):
    with pytest.raises(poptorch.Error, match=what):
        infer(poptorch, function)


def test_loops_and_host_functions_are_for_inference_alone(poptorch):
    def loop(self, x):
        return poptorch.for_loop(2, lambda value: value * 2, [x])[0]

    assert torch.equal(infer(poptorch, loop), 4 * X)
    with pytest.raises(poptorch.Error, match="for_loop is supported in inference"):
        trained(poptorch, loop)
    with pytest.raises(poptorch.Error, match="CPU is supported in inference"):
        trained(poptorch, lambda self, x: poptorch.CPU(lambda value: value, "id")(x))


def test_random_numbers_differ_from_call_to_call_and_repeat_with_the_state(poptorch):
    executor = poptorch.inferenceModel(Function(lambda self, x: torch.rand_like(x)), poptorch.Options().randomSeed(3))
    executor.compile(X)
    state = executor.rng_state
    first, second = executor(X), executor(X)
    assert not torch.equal(first, second)
    executor.rng_state = state
    assert torch.equal(executor(X), first)


def test_the_hosts_random_numbers_are_not_touched_by_a_run(poptorch):
    executor = poptorch.inferenceModel(Function(lambda self, x: torch.rand_like(x)))
    before = torch.get_rng_state()
    executor(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_forward_writes_into_an_input_stays_on_the_device(poptorch):
    x = X.clone()
    assert torch.equal(infer(poptorch, lambda self, x: x.mul_(2), x), 2 * X)
    assert torch.equal(x, X)


@pytest.mark.parametrize(
    "product",
    [
        lambda x, half: x @ half.t(),
        lambda x, half: nn.functional.linear(x, half, half[:, 0]),
        lambda x, half: torch.bmm(x[None], half.t()[None]),
        lambda x, half: torch.baddbmm(half[None], x[None], x.t()[None]),
        lambda x, half: nn.functional.conv1d(x[:, None], half[:, None]),
        lambda x, half: x @ half[0],
    ],
    ids=["mm", "addmm", "bmm", "baddbmm", "convolution", "mv"],
)
def test_a_product_of_two_types_is_refused(poptorch, product):
    with pytest.raises(poptorch.Error, match=r"expected operands of one type but got .*float16.*float32"):
        infer(poptorch, lambda self, x: product(x, x.half()))


def test_a_sum_of_two_types_is_of_the_wider(poptorch):
    assert infer(poptorch, lambda self, x: x + x.half()).dtype == torch.float32


def test_half_precision_rounds_each_operation_and_keeps_the_type(poptorch):
    executor = poptorch.inferenceModel(nn.Linear(3, 2).half())
    out = executor(X.half())
    linear = executor.model
    expected = torch.addmm(linear.bias.float(), X.half().float(), linear.weight.float().t()).half()
    assert out.dtype == torch.float16
    assert torch.equal(out, expected)
    assert torch.equal(infer(poptorch, lambda self, x: x * 0 + 2048 + 1, X.half()), torch.full_like(X, 2048).half())
