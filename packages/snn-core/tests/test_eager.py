"""The reference backend against loops written by hand in plain torch."""

import copy
from typing import List, Tuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from snn_core.containers import Sequential
from snn_core.eager import EagerBackend, EagerOptions, EagerProgram
from snn_core.encoders import Constant
from snn_core.errors import CheckpointError, ConfigError, DataError, Unsupported
from snn_core.losses import CountCrossEntropy
from snn_core.neurons import LI, LIF
from snn_core.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step

FLOAT64 = torch.float64


def number(tensor: Tensor) -> float:
    return tensor.detach().item()


def network(dropout: bool = False) -> Sequential:
    torch.manual_seed(0)
    extra = [nn.Dropout(0.5)] if dropout else []
    net = Sequential(Constant(steps=5), nn.Linear(6, 9), *extra, LIF(beta=0.8), nn.Linear(9, 3), LI(beta=0.9))
    return net.double()


def samples(count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    x = 2 * torch.rand(count, 6, generator=generator, dtype=FLOAT64)
    return TensorDataset(x, torch.arange(count) % 3)


def compiled(model: nn.Module, optimizer: Optimizer, size: int = 4, dtype: str = "float64", **train) -> EagerProgram:
    spec = BatchSpec(size, TensorSpec((6,), dtype), TensorSpec((), "int64"))
    return EagerBackend().compile(Step(model, CountCrossEntropy()), optimizer, spec, TrainSpec(**train))


def run(program: EagerProgram, data: TensorDataset, epochs: int = 1) -> List[float]:
    losses = []
    for _ in range(epochs):
        for batch in program.loader(data, range(len(data)), training=True):
            losses.append(number(program.train_step(batch).loss))
    return losses


def weights(program: EagerProgram) -> List[Tensor]:
    return list(program.state_dict()["model"].values())


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        (SGD(lr=0.1, momentum=0.9, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
        (Adam(lr=0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
        (AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.01)),
        (RMSprop(lr=0.01, momentum=0.5), lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5)),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_training_equals_a_loop_written_by_hand(spec: Optimizer, make) -> None:
    model, data = network(), samples(12)
    program = compiled(model, spec)
    losses = run(program, data, epochs=3)
    twin = copy.deepcopy(model).train()
    optimizer = make(twin.parameters())
    expected = []
    for _ in range(3):
        for x, y in zip(data.tensors[0].split(4), data.tensors[1].split(4)):
            optimizer.zero_grad()
            loss = cross_entropy(twin(x).sum(0), y)
            loss.backward()
            optimizer.step()
            expected.append(number(loss))
    assert losses == pytest.approx(expected, rel=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(weights(program), twin.state_dict().values()))


def test_accumulated_micro_batches_equal_the_mean_of_their_gradients() -> None:
    model, data = network(), samples(12)
    program = compiled(model, SGD(lr=0.1), size=4, accumulation=3)
    batches = list(program.loader(data, range(12), training=True))
    assert [len(x) for x, _ in batches] == [12]
    report = program.train_step(batches[0])
    twin = copy.deepcopy(model)
    losses = [cross_entropy(twin(x).sum(0), y) for x, y in zip(*(t.split(4) for t in data.tensors))]
    (sum(losses) / 3).backward()
    with torch.no_grad():
        for p in twin.parameters():
            p -= 0.1 * p.grad
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(weights(program), twin.state_dict().values()))
    assert report.optimizer_steps == 1
    assert number(report.loss) == pytest.approx(number(sum(losses)) / 3, rel=1e-12)


@pytest.mark.parametrize("clip", [{"clip_norm": 0.05}, {"clip_value": 0.01}])
def test_clipping_bounds_the_update(clip) -> None:
    model = network()
    before = [p.clone() for p in model.parameters()]
    program = compiled(model, SGD(lr=1.0), **clip)
    run(program, samples(4))
    program.sync()
    change = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before)])
    if "clip_norm" in clip:
        assert number(change.norm()) == pytest.approx(0.05, rel=1e-4)
    else:
        assert number(change.abs().max()) == pytest.approx(0.01, rel=1e-9)


def test_truncated_back_propagation_equals_a_loop_over_chunks() -> None:
    torch.manual_seed(0)
    net = Sequential(nn.Linear(6, 9), LIF(beta=0.8), nn.Linear(9, 3), LI(beta=0.9)).double()
    x, y = 2 * torch.rand(4, 7, 6, dtype=FLOAT64), torch.arange(4) % 3
    spec = BatchSpec(4, TensorSpec((7, 6), "float64", time_axis=1), TensorSpec((), "int64"))
    program = EagerBackend().compile(Step(net, CountCrossEntropy()), SGD(lr=0.1), spec, TrainSpec(chunk=3))
    batch = next(iter(program.loader(TensorDataset(x, y), range(4), training=True)))
    report = program.train_step(batch)
    twin = copy.deepcopy(net)
    hidden_state = out_state = None
    for piece in x.transpose(0, 1).split(3):
        twin.zero_grad()
        hidden, hidden_state = twin[1].unroll(twin[0](piece), hidden_state)
        out, out_state = twin[3].unroll(twin[2](hidden), out_state)
        cross_entropy(out.sum(0), y).backward()
        with torch.no_grad():
            for p in twin.parameters():
                p -= 0.1 * p.grad
        hidden_state, out_state = (tuple(t.detach() for t in s) for s in (hidden_state, out_state))
    assert report.optimizer_steps == 3
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(weights(program), twin.state_dict().values()))


def test_evaluation_sees_every_sample_once() -> None:
    model, data = network(), samples(10)
    program = compiled(model, SGD())
    reports = [program.eval_step(b) for b in program.loader(data, range(10), training=False)]
    assert program.batches(10, training=False) == len(reports) == 3
    total = sum(number(r.loss) * number(r.weight) for r in reports) / sum(number(r.weight) for r in reports)
    out = model(data.tensors[0]).sum(0)
    assert total == pytest.approx(number(cross_entropy(out, data.tensors[1])), rel=1e-12)
    assert sum(number(r.correct) for r in reports) == number((out.argmax(1) == data.tensors[1]).sum())
    assert torch.cat([r.output for r in reports], dim=1).shape == (5, 10, 3)


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [4, 4]), (False, [4, 4, 2])])
def test_the_last_short_batch_of_training_is_dropped_unless_told_otherwise(drop_last: bool, sizes: List[int]) -> None:
    program = compiled(network(), SGD(), drop_last=drop_last)
    batches = list(program.loader(samples(10), range(10), training=True))
    assert [len(x) for x, _ in batches] == sizes
    assert program.batches(10, training=True) == len(sizes)
    for batch in batches:
        assert program.train_step(batch).optimizer_steps == 1


def test_the_loader_follows_the_order_and_starts_where_it_is_told() -> None:
    data, order = samples(12), [7, 3, 11, 0, 5, 2, 9, 1, 4, 8, 10, 6]
    whole = list(compiled(network(), SGD()).loader(data, order, training=True))
    assert torch.equal(torch.cat([x for x, _ in whole]), data.tensors[0][order])
    rest = list(compiled(network(), SGD()).loader(data, order, training=True, start=2))
    assert len(rest) == 1
    assert torch.equal(rest[0][0], whole[2][0])


def test_the_host_s_random_numbers_do_not_reach_the_training() -> None:
    def final(draws: int) -> List[Tensor]:
        program = compiled(network(dropout=True), SGD(lr=0.1), seed=5)
        for batch in program.loader(samples(12), range(12), training=True):
            torch.rand(draws)
            program.train_step(batch)
        return weights(program)

    assert all(torch.equal(a, b) for a, b in zip(final(1), final(17)))


def test_training_leaves_the_host_s_random_numbers_alone() -> None:
    program = compiled(network(dropout=True), SGD(lr=0.1))
    before = torch.get_rng_state()
    run(program, samples(12))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_in_between_does_not_change_the_training() -> None:
    def final(evaluate: bool) -> List[Tensor]:
        program = compiled(network(dropout=True), SGD(lr=0.1))
        for batch in program.loader(samples(12), range(12), training=True):
            program.train_step(batch)
            if evaluate:
                for other in program.loader(samples(5), range(5), training=False):
                    program.eval_step(other)
        return weights(program)

    assert all(torch.equal(a, b) for a, b in zip(final(False), final(True)))


def test_a_program_that_loads_a_state_goes_on_to_the_same_bits() -> None:
    data = samples(12)
    whole = compiled(network(dropout=True), Adam(lr=0.01), seed=1)
    run(whole, data, epochs=2)
    first = compiled(network(dropout=True), Adam(lr=0.01), seed=1)
    run(first, data)
    state = copy.deepcopy(first.state_dict())
    second = compiled(network(dropout=True), Adam(lr=0.01), seed=99)
    second.load_state_dict(state)
    run(second, data)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second)))


def test_a_state_of_another_model_is_refused() -> None:
    state = compiled(network(), SGD()).state_dict()
    other = compiled(Sequential(Constant(steps=2), nn.Linear(6, 3), LI()).double(), SGD())
    with pytest.raises(CheckpointError, match="build the model"):
        other.load_state_dict(state)


def test_sync_copies_weights_and_buffers_to_the_user_s_model() -> None:
    torch.manual_seed(0)
    model = Sequential(Constant(steps=3), nn.Linear(6, 3), nn.BatchNorm1d(3), LI()).double()
    before = copy.deepcopy(model.state_dict())
    program = compiled(model, SGD(lr=0.1))
    run(program, samples(8))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    program.sync()
    assert not torch.equal(before["2.running_mean"], model.state_dict()["2.running_mean"])
    assert all(torch.equal(a, b) for a, b in zip(weights(program), model.state_dict().values()))


def test_a_report_keeps_no_graph_alive() -> None:
    program = compiled(network(), SGD())
    report = program.train_step(next(iter(program.loader(samples(4), range(4), training=True))))
    assert not any(t.requires_grad for t in (report.objective, report.loss, report.weight, report.samples))


def test_the_learning_rate_of_the_next_step_can_be_set() -> None:
    program = compiled(network(), SGD(lr=0.1))
    before = [w.clone() for w in weights(program)]
    program.set_lr(0.0)
    run(program, samples(4))
    assert all(torch.equal(a, b) for a, b in zip(weights(program), before))


def test_deterministic_algorithms_are_asked_for_only_while_the_program_runs() -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return x

    program = compiled(Sequential(Constant(steps=2), Spy(), nn.Linear(6, 3), LI()).double(), SGD(), deterministic=True)
    seen.clear()
    run(program, samples(4))
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_bfloat16_training_keeps_neuron_states_and_weights_in_float32() -> None:
    torch.manual_seed(0)
    net = Sequential(Constant(steps=4), nn.Linear(6, 8), LIF(), nn.Linear(8, 3), LI())
    data = TensorDataset(samples(8).tensors[0].float(), samples(8).tensors[1])
    program = compiled(net, SGD(lr=0.1), dtype="float32", precision="bf16")
    assert all(torch.isfinite(torch.tensor(run(program, data))))
    assert {w.dtype for w in weights(program)} == {torch.float32}


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("label", 3, "sample 2: .*label"),
        ("label", -1, "sample 2: .*label"),
        ("x", float("nan"), "sample 2: .*NaN"),
        ("x", float("inf"), "sample 2: .*infinite"),
    ],
)
def test_bad_data_is_refused_before_it_is_used(label: str, value: float, message: str) -> None:
    x, y = (t.clone() for t in samples(4).tensors)
    if label == "label":
        y[2] = int(value)
    else:
        x[2, 1] = value
    program = compiled(network(), SGD())
    with pytest.raises(DataError, match=message):
        list(program.loader(TensorDataset(x, y), range(4), training=True))


def test_undeclared_features_are_refused_before_compile() -> None:
    with pytest.raises(Unsupported, match="no precision 'fp16'; it has bf16, fp32"):
        compiled(network(), SGD(), precision="fp16")
    with pytest.raises(Unsupported, match="several optimiser steps"):
        compiled(network(), SGD(), steps_per_call=2)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="no trainable parameters"):
        compiled(Sequential(Constant(steps=2), nn.Flatten(), LI()), SGD())


def test_a_closed_program_refuses_work_and_may_be_closed_again() -> None:
    program = compiled(network(), SGD())
    program.close()
    program.close()
    with pytest.raises(RuntimeError, match="closed"):
        program.state_dict()


def test_a_device_that_is_not_there_is_unavailable_with_a_remedy() -> None:
    health = EagerBackend(EagerOptions(device="cuda:7")).probe()
    assert (health.status, bool(health.remedy)) == ("unavailable", True)


def test_a_device_that_torch_does_not_know_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="torch device"):
        EagerOptions(device="quantum")


class Augmented:
    """Adds noise to each sample, as users' data sets do."""

    def __init__(self, inner: TensorDataset) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Tuple[Tensor, Tensor]:
        x, y = self.inner[index]
        return x + torch.rand(()), y


def test_a_dataset_s_draws_depend_on_the_seed_and_position_not_on_the_process() -> None:
    spec = BatchSpec(4, TensorSpec((6,), "float64"), TensorSpec((), "int64"))

    def read(workers: int, start: int) -> List[Tensor]:
        backend = EagerBackend(EagerOptions(num_workers=workers))
        program = backend.compile(Step(network(), CountCrossEntropy()), SGD(), spec, TrainSpec())
        data = Augmented(samples(12))
        return [x for x, _ in program.loader(data, range(12), training=True, start=start, seed=7)]

    whole = read(workers=2, start=0)
    before = torch.get_rng_state()
    assert torch.equal(whole[2], read(workers=1, start=2)[0])
    assert torch.equal(whole[2], read(workers=0, start=2)[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_is_refused_in_one_line_wherever_it_is_read(workers: int) -> None:
    spec = BatchSpec(4, TensorSpec((6,), "float64"), TensorSpec((), "int64"))
    program = EagerBackend(EagerOptions(num_workers=workers)).compile(
        Step(network(), CountCrossEntropy()), SGD(), spec, TrainSpec()
    )
    x, target = samples(12).tensors
    data = TensorDataset(x, target.clone().index_fill_(0, torch.tensor([6]), 99))
    with pytest.raises(DataError, match=r"^sample 6: [^\n]*99[^\n]*$"):
        list(program.loader(data, range(12), training=True))
