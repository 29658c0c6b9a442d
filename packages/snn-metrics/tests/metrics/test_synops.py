"""Operations over a dataset: every weight application counted one by one, in any cut of time, samples and calls."""

import copy
import gc
import itertools
import pickle
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics import MetricCollection

import snn_core as snn
from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import OneToOne, Recurrent
from snn_metrics.counting import KINDS
from snn_metrics.hooks import register_synops_hooks
from snn_metrics.metrics import FiringRate, SynOps


def kinds_of(value, weight):
    """What one weight that meets one value counts, of each kind."""
    value = float(value)
    return {
        "synops": abs(value),
        "dense": 1,
        "effective": value != 0,
        "sparse": value != 0 and weight != 0,
        "acs": abs(value) == 1,
        "macs": value != 0 and abs(value) != 1,
    }


def brute_linear(layer, x):
    """Operations of one sample's input in one step, x [features], each weight by itself."""
    total = dict.fromkeys(KINDS, 0.0)
    weight = layer.weight.detach().numpy()
    for row, (column, value) in itertools.product(range(weight.shape[0]), enumerate(x)):
        for kind, count in kinds_of(value, weight[row, column]).items():
            total[kind] += count
    return total


def brute_conv(layer, x):
    """The same of a convolution, x [channels, height, width]: every output and every tap inside of the input."""
    total = dict.fromkeys(KINDS, 0.0)
    weight, (padding, stride) = layer.weight.detach().numpy(), (layer.padding[0], layer.stride[0])
    out, channels, kernel, _ = weight.shape
    size = (x.shape[1] + 2 * padding - kernel) // stride + 1
    for o, c, i, j, p, q in itertools.product(
        range(out), range(channels), range(size), range(size), range(kernel), range(kernel)
    ):
        row, column = i * stride + p - padding, j * stride + q - padding
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            for kind, count in kinds_of(x[c, row, column], weight[o, c, p, q]).items():
                total[kind] += count
    return total


def added(totals):
    totals = list(totals)
    return {kind: sum(total[kind] for total in totals) for kind in KINDS}


def graded(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(-1, 4, shape) * (rng.random(shape) < 0.5)).float()


def pruned(layer, seed=0):
    with torch.no_grad():
        layer.weight *= torch.from_numpy(np.random.default_rng(seed).random(layer.weight.shape) < 0.7)
    return layer


def check(metric, expected, samples, steps):
    """expected: for each layer and kind the total."""
    value = metric.compute()
    assert set(value) == set(metric.kinds)
    for kind, counts in value.items():
        for name, layer in counts.layers.items():
            assert float(layer.synops_total) == expected[name][kind], (kind, name)
        total = sum(expected[name][kind] for name in expected)
        # totals are whole numbers, and exact; a mean rounds once
        assert float(counts.synops_total) == total
        np.testing.assert_allclose(float(counts.synops_per_sample), total / samples, rtol=1e-15)
        np.testing.assert_allclose(float(counts.synops_per_step), total / (samples * steps), rtol=1e-15)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 4))
@settings(max_examples=25)
def test_every_kind_is_exact_over_batches_masks_and_chunks_of_time(seed, batches, steps):
    rng = np.random.default_rng(seed)
    model = snn.Sequential(pruned(nn.Conv2d(2, 2, 3, stride=2, padding=1), seed), nn.Flatten())
    metric = SynOps(model, kinds=KINDS)
    counted, samples = [], 0
    for size in batches:
        x, valid = graded(steps, size, 2, 4, 4, seed=rng), torch.from_numpy(rng.random(size) < 0.7)
        counted += [brute_conv(model[0], step) for sample in x[:, valid].transpose(0, 1).numpy() for step in sample]
        samples += int(valid.sum())
        cut = int(rng.integers(0, steps + 1))
        with metric.watch(model):
            for chunk in (x[:cut], x[cut:]):
                if len(chunk):
                    model(chunk)
            metric.update(valid)
    if samples:
        check(metric, {"0": added(counted)}, samples, steps)


class Plain(nn.Module):
    """Two linear layers on [..., 3], in every way that a forward may hold time."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.one, self.two = pruned(nn.Linear(3, 4)), pruned(nn.Linear(4, 2))

    def layers(self, x):
        return self.two(self.one(x).round().clamp(-1, 3))

    def forward(self, x):
        if self.way == "whole":
            return self.layers(x)
        if self.way == "folded":
            return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        if self.way == "turned":
            return self.layers(x.transpose(0, 1)).transpose(0, 1)
        return torch.stack([self.layers(step) for step in x.unbind(self.way)], self.way)


@pytest.mark.parametrize("time_axis", [0, 1, -2])
@pytest.mark.parametrize("way", ["whole", "folded", "turned", "loop"])
def test_a_plain_module_counts_the_same_however_it_holds_time(way, time_axis):
    axis = time_axis % 3
    model = Plain(axis if way == "loop" else way)
    x = graded(5, 2, 3)  # time first
    valid = torch.tensor([0, 1])
    metric = SynOps(model, kinds=KINDS, time_axis=time_axis)
    with torch.no_grad(), metric.watch(model):
        model(x if axis == 0 else x.transpose(0, 1))
    metric.update(valid)
    hidden = model.one(x).round().clamp(-1, 3).detach().numpy()
    expected = {
        "one": added(brute_linear(model.one, step) for step in x[:, 1].numpy()),
        "two": added(brute_linear(model.two, step) for step in hidden[:, 1]),
    }
    check(metric, expected, samples=1, steps=5)


def test_a_loop_outside_of_the_model_adds_its_steps_up():
    model, x = nn.Linear(3, 4), graded(5, 2, 3)
    metric = SynOps(model, kinds=KINDS)
    with metric.watch(model):
        for step in x:
            model(step)
        metric.update()
    check(metric, {"": added(brute_linear(model, step) for step in x.reshape(-1, 3).numpy())}, samples=2, steps=5)


def test_without_time_further_axes_are_positions_and_a_forward_is_a_step():
    model, x = nn.Linear(3, 4), graded(2, 7, 3)
    metric = SynOps(model, kinds=KINDS)
    with metric.watch(model):
        model(x)
        metric.update()
    check(metric, {"": added(brute_linear(model, step) for step in x.reshape(-1, 3).numpy())}, samples=2, steps=1)


@pytest.mark.parametrize("time_axis", [None, 0])
def test_one_sample_without_a_batch_is_one_sample(time_axis):
    model, x = pruned(nn.Conv2d(2, 2, 3, padding=1)), graded(5, 2, 4, 4)
    metric = SynOps(model, kinds=KINDS, time_axis=time_axis, batched=False)
    with metric.watch(model):
        model(x[0] if time_axis is None else x)
        metric.update()
    seen = x[:1] if time_axis is None else x
    check(metric, {"": added(brute_conv(model, step) for step in seen.numpy())}, samples=1, steps=len(seen))


def test_a_constant_input_costs_at_every_step_though_it_is_computed_once():
    model = snn.Sequential(snn.Constant(6), pruned(nn.Linear(3, 4)), snn.LIF(), nn.Linear(4, 2))
    x = graded(2, 3)
    metric = SynOps(model, kinds=KINDS)
    with torch.no_grad(), metric.watch(model):
        model(x)
        spikes = model[2](model[1](x).expand(6, 2, 4))
    metric.update()
    expected = {
        "1": added(6 * [added(brute_linear(model[1], sample) for sample in x.numpy())]),
        "3": added(brute_linear(model[3], step) for step in spikes.reshape(-1, 4).numpy()),
    }
    check(metric, expected, samples=2, steps=6)


class Held(nn.Module):
    """A neuron layer inside a module of the user's."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("inside", [lambda m: m, lambda m: snn.Sequential(m), lambda m: snn.Sequential(Held(m)), Held])
@pytest.mark.parametrize("connection", [lambda: nn.Linear(3, 3), lambda: OneToOne(3), lambda: OneToOne()])
def test_recurrent_connections_count_what_they_hear(inside, connection):
    recurrent = Recurrent(snn.LIF(threshold=0.5), connection())
    with torch.no_grad():
        recurrent.connection.weight.reshape(-1)[0] = 0
    model = inside(recurrent)
    x = graded(6, 2, 3, seed=3)
    metric = SynOps(model, kinds=("synops", "effective", "sparse"))
    with torch.no_grad(), metric.watch(model):
        out = model(x)
    metric.update(torch.tensor([1, 0]))
    heard, weight = out[:-1, 0].double(), recurrent.connection.weight.detach()
    assert heard.sum() > 0
    each = 3 if weight.ndim == 2 else 1
    nonzero = (weight != 0).sum(0) if weight.ndim == 2 else (weight != 0).expand(3)
    value = metric.compute()
    assert value["synops"].synops_total == (heard * each).sum()
    assert value["effective"].synops_total == ((heard != 0) * each).sum()
    assert value["sparse"].synops_total == ((heard != 0) * nonzero).sum()
    assert value["synops"].synops_per_step == (heard * each).sum() / 6


def test_sums_are_whole_beyond_float32_and_in_half_precision():
    # 2 ** 24 + 1 = 16 777 217 = 97 x 257 x 673, the first whole number that float32 has not
    layer = nn.Linear(257, 673).bfloat16()
    metric = SynOps(layer)
    with metric.watch(layer):
        for _ in range(97):
            layer(torch.ones(1, 257, dtype=torch.bfloat16))
        metric.update()
    assert int(metric.compute()["synops"].synops_total) == 2**24 + 1


def test_an_average_pool_is_undone_for_graded_counts():
    model = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 3, 1))
    x = graded(2, 1, 4, 4).abs()
    for pooling, factor in (("sum", 4), ("none", 1)):
        metric = SynOps(model, pooling=pooling)
        with metric.watch(model):
            model(x)
            metric.update()
        assert metric.compute()["synops"].synops_total == x.double().mean() * 8 * 3 * factor


def test_a_watched_model_is_left_as_it_was_and_no_activation_stays():
    model = snn.Sequential(nn.Linear(3, 4), snn.LIF())
    metric = SynOps(model, kinds=KINDS)
    x = torch.ones(5, 2, 3)
    seen = weakref.ref(x)
    with metric.watch(model):
        model(x)
        del x
        gc.collect()
        assert seen() is None
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert model.clock is None
    with pytest.raises(RuntimeError, match="broke"), metric.watch(model):
        raise RuntimeError("broke")
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_pending_does_not_grow_with_time():
    model = snn.Sequential(nn.Linear(3, 4), snn.LIF())
    sizes = []
    for chunks in (1, 50):
        metric = SynOps(model, kinds=KINDS)
        with metric.watch(model):
            for _ in range(chunks):
                model(torch.ones(5, 2, 3))
        sizes.append(len(pickle.dumps(metric)))
    # nothing but digits of the sums differs
    assert abs(sizes[0] - sizes[1]) < 64


def test_two_metrics_and_a_collection_may_watch_one_model():
    model = snn.Sequential(nn.Linear(3, 4), snn.LIF(), nn.Linear(4, 2))
    whole, part = SynOps(model), SynOps(model, kinds=("effective",))
    metrics = MetricCollection({"synops": whole, "part": part, "rate": FiringRate()})
    x, valid = graded(5, 2, 3).abs(), torch.tensor([1.0, 0.0])
    with torch.no_grad(), whole.watch(model), part.watch(model):
        out = model(x)
        metrics.update(spikes=out, valid=valid)
    value = metrics.compute()
    alone = SynOps(model, kinds=("synops", "effective"))
    with torch.no_grad(), alone.watch(model):
        model(x)
    alone.update(valid)
    assert value["synops"] == alone.compute()["synops"]
    assert value["effective"] == alone.compute()["effective"]


@pytest.mark.parametrize(
    ("model", "shape", "settings_of_both"),
    [
        (snn.Sequential(snn.Constant(4), nn.Linear(3, 4), snn.LIF(), nn.Linear(4, 2)), (2, 3), {}),
        (
            snn.Sequential(nn.Linear(3, 3), Recurrent(snn.LIF(threshold=0.1), OneToOne(3)), nn.Linear(3, 2)),
            (5, 2, 3),
            {},
        ),
        (snn.Sequential(Held(Recurrent(snn.LIF(threshold=0.1), nn.Linear(3, 3)))), (5, 2, 3), {}),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(2, 3, 1)), (2, 1, 6, 6), {}),
        (Plain("whole"), (5, 2, 3), {"time_axis": 0}),
        (Plain("folded"), (2, 5, 3), {"time_axis": 1}),
        (Plain("whole"), (5, 3), {"time_axis": 0, "batched": False}),
        (Plain("whole"), (3,), {}),
    ],
)
def test_the_metric_and_the_hooks_agree_on_one_forward(model, shape, settings_of_both):
    metric = SynOps(model, **settings_of_both)
    with torch.no_grad(), register_synops_hooks(model, **settings_of_both), metric.watch(model):
        model(torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2)
        hooked = dict(model.hook_data["synops_per_timestep"])
    metric.update()
    counts = metric.compute()["synops"]
    assert list(counts.layers) == list(hooked)
    for name, layer in counts.layers.items():
        # the hooks sum in float32, of a few hundred values: 1e-5 relative is far above their rounding
        np.testing.assert_allclose(float(layer.synops_per_step), float(hooked[name]), rtol=1e-5)
    assert counts.synops_per_step > 0


@pytest.mark.parametrize("settings_of_torchmetrics", [{}, {"dist_sync_on_step": True}, {"compute_with_cache": False}])
def test_forward_gives_the_batchs_value_and_adds_it(settings_of_torchmetrics):
    model = nn.Linear(3, 4)
    metric = SynOps(model, **settings_of_torchmetrics)
    with metric.watch(model):
        model(torch.ones(2, 3))
        assert metric()["synops"].synops_total == 2 * 12
        model(torch.ones(1, 3))
        assert metric(torch.ones(1))["synops"].synops_total == 12
    assert metric.compute()["synops"].synops_total == 3 * 12
    assert metric.compute()["synops"].synops_per_sample == 12


def test_reset_forgets_sums_and_forwards_not_taken():
    model = nn.Linear(3, 4)
    metric = SynOps(model)
    with metric.watch(model):
        model(torch.ones(2, 3))
        metric.update()
        model(torch.ones(2, 3))
        metric.reset()
        model(torch.ones(1, 3))
        metric.update()
    assert metric.compute()["synops"].synops_total == 12
    assert metric.compute()["synops"].synops_per_sample == 12


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_a_copy_counts_on_by_itself_and_carries_no_model(copied):
    model = nn.Linear(300, 300)
    metric = SynOps(model)
    with metric.watch(model):
        model(torch.ones(2, 300))
        metric.update()
        other = copied(metric)
    assert len(pickle.dumps(metric)) < 20_000
    with other.watch(model):
        model(torch.ones(1, 300))
        other.update()
    assert other.compute()["synops"].synops_total == 3 * 90_000
    assert metric.compute()["synops"].synops_total == 2 * 90_000


def test_a_model_that_runs_in_inference_mode_or_trains_is_counted():
    model = nn.Linear(3, 4)
    metric = SynOps(model)
    with metric.watch(model):
        with torch.inference_mode():
            model(torch.ones(2, 3))
        metric.update()
        model(torch.ones(2, 3)).sum().backward()
        metric.update()
    assert metric.compute()["synops"].synops_total == 48
    assert not metric.operations.requires_grad


def test_a_forward_that_failed_counts_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    metric = SynOps(model)
    hook = model[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("broke")))
    with metric.watch(model):
        with pytest.raises(RuntimeError, match="broke"):
            model(torch.ones(2, 3))
        hook.remove()
        model(torch.ones(1, 3))
        metric.update()
    assert metric.compute()["synops"].layers["0"].synops_total == 12


class Resting(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x):
        return self.used(x)


def test_a_layer_that_did_not_run_is_an_error_unless_it_may_rest():
    model = Resting()
    metric = SynOps(model)
    with metric.watch(model), pytest.raises(ConfigError, match="'unused' did not run"):
        model(torch.ones(2, 3))
    metric = SynOps(model, may_rest=["unused"])
    with metric.watch(model):
        model(torch.ones(2, 3))
    metric.update()
    assert metric.compute()["synops"].layers["unused"].synops_total == 0
    assert metric.compute()["synops"].synops_total == 24


class Outside(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(3, 4), snn.LIF()

    def forward(self, x):
        return self.lif(self.fc(x))


def test_time_that_nobody_tells_is_refused_not_guessed():
    model, x = Outside(), graded(5, 5, 3)
    metric = SynOps(model)
    with metric.watch(model), pytest.raises(ConfigError, match="'fc' stands outside"):
        model(x)
    metric = SynOps(model, kinds=KINDS, time_axis=0)
    with metric.watch(model):
        model(x)
    metric.update(torch.tensor([1, 0, 0, 0, 0]))
    check(metric, {"fc": added(brute_linear(model.fc, step) for step in x[:, 0].numpy())}, samples=1, steps=5)


class Cut(nn.Module):
    def forward(self, x):
        return x[:3]


def test_wrong_use_is_refused_with_the_remedy():
    model = nn.Linear(3, 4)
    with pytest.raises(ConfigError, match="no weight layer"):
        SynOps(nn.ReLU())
    with pytest.raises(ConfigError, match="did you mean 'synops'"):
        SynOps(model, kinds=("synop",))
    with pytest.raises(ConfigError, match="each once"):
        SynOps(model, kinds=("acs", "acs"))
    with pytest.raises(ConfigError, match="each once"):
        SynOps(model, kinds=())
    with pytest.raises(ConfigError, match="time_axis is True"):
        SynOps(model, time_axis=True)
    with pytest.raises(ConfigError, match="may_rest names 'x'"):
        SynOps(model, may_rest=["x"])
    metric = SynOps(model)
    with pytest.raises(ConfigError, match="no forward to count"):
        metric.update()
    with pytest.raises(ConfigError, match=r"of DistributedDataParallel its \.module"), metric.watch(
        nn.Sequential(model)
    ):
        pass
    with metric.watch(model):
        with pytest.raises(ConfigError, match="count twice"), metric.watch(model):
            pass
        model(torch.ones(2, 3))
        with pytest.raises(ShapeError, match=r"must be \[2\]"):
            metric.update(torch.ones(3))
        with pytest.raises(ShapeError, match=r"take the counts of a batch \(update\)"):
            model(torch.ones(1, 3))
    timed = SynOps(model, time_axis=2)
    with timed.watch(model), pytest.raises(ShapeError, match="names no axis of time"):
        model(torch.ones(2, 3))
    cut = nn.Sequential(Cut(), model)
    timed = SynOps(cut, time_axis=0)
    with timed.watch(cut), pytest.raises(ShapeError, match=r"must begin with \[4, 2\] or \[8\]"):
        cut(torch.ones(4, 2, 3))
