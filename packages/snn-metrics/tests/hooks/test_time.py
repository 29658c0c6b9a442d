"""One network over a sequence, run in every way that people run it: the mean over samples and steps is always the same.

The expected values are the layers' inputs, step by step, times their fan-out by hand.
"""

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_core.errors import ShapeError
from snn_core.presets import sinabs
from snn_metrics.hooks import register_synops_hooks

STEPS, BATCH = 5, 3
TOTAL, EACH = "total_synops_per_timestep", "synops_per_timestep"


class Over(nn.Module):
    """Two linear layers, or a convolution and a linear layer, over a sequence, in one of several ways."""

    def __init__(self, way, convolve=False):
        super().__init__()
        self.way = way
        self.first = nn.Conv1d(2, 3, 3, padding=1) if convolve else nn.Linear(4, 6)
        self.second = nn.Linear(12 if convolve else 6, 2)

    def step(self, x):
        hidden = torch.relu(self.first(x))
        return self.second(hidden.flatten(1) if self.first.weight.ndim == 3 else hidden)

    def forward(self, x):
        if self.way == "loop":
            return torch.stack([self.step(x_t) for x_t in x])
        if self.way == "batch-first loop":
            return torch.stack([self.step(x_t) for x_t in x.unbind(1)], 1)
        if self.way == "folded":
            return self.step(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.second(torch.relu(self.first(x)))


def counted(module, x, **settings):
    with register_synops_hooks(module, **settings):
        module(x)
        return {name: value.item() for name, value in module.hook_data[EACH].items()}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def spikes():
    return (torch.rand(STEPS, BATCH, 4) < 0.4).float() * 2


def test_every_way_to_run_a_sequence_counts_the_mean_over_samples_and_steps(spikes):
    net = Over("whole")
    hidden = torch.relu(net.first(spikes))
    frames = STEPS * BATCH
    expected = pytest.approx(
        {"first": spikes.sum().item() * 6 / frames, "second": hidden.sum().item() * 2 / frames}, rel=1e-6
    )
    for way in ("whole", "loop", "folded"):
        net.way = way
        assert counted(net, spikes, time_axis=0) == expected, way
    for way in ("whole", "batch-first loop"):
        net.way = way
        assert counted(net, spikes.transpose(0, 1), time_axis=1) == expected, way
        assert counted(net, spikes.transpose(0, 1), time_axis=-2) == expected, way


def test_a_convolution_in_a_loop_or_folded_counts_the_same(spikes):
    net = Over("loop", convolve=True)
    x = spikes.unsqueeze(2).expand(-1, -1, 2, -1)
    in_a_loop = counted(net, x, time_axis=0)
    # two channels; each element but the two at the ends meets 3 taps of 3 channels
    by_hand = 2 * 3 * (3 * spikes.sum() - spikes[..., 0].sum() - spikes[..., -1].sum()).item() / (STEPS * BATCH)
    assert in_a_loop["first"] == pytest.approx(by_hand, rel=1e-6)
    net.way = "folded"
    assert counted(net, x, time_axis=0) == pytest.approx(in_a_loop, rel=1e-6)


def test_a_sequence_without_a_batch_is_one_sample(spikes):
    net, x = nn.Sequential(nn.Linear(4, 6)), spikes[:, 0]
    assert counted(net, x, time_axis=0, batched=False) == {"0": pytest.approx(x.sum().item() * 6 / STEPS)}


def test_an_input_of_positions_without_a_batch_or_time_is_one_sample(spikes):
    net, x = nn.Sequential(nn.Linear(4, 6)), spikes[:, 0]
    assert counted(net, x, batched=False) == {"0": pytest.approx(x.sum().item() * 6)}


def test_without_a_time_axis_further_axes_are_positions(spikes):
    net, x = nn.Sequential(nn.Linear(4, 6)), spikes.transpose(0, 1)
    assert counted(net, x) == {"0": pytest.approx(x.sum().item() * 6 / BATCH)}


def test_without_a_time_axis_the_steps_of_a_loop_add_up(spikes):
    assert counted(Over("loop"), spikes)["first"] == pytest.approx(spikes.sum().item() * 6 / BATCH)


def test_the_first_tensor_that_a_module_gets_tells_time_whatever_its_name(spikes):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6)

        def forward(self, gain, sequence):
            return self.fc(sequence) * gain

    net = Named()
    register_synops_hooks(net, time_axis=0)
    net(2.0, sequence=spikes)
    assert net.hook_data[TOTAL].item() == pytest.approx(spikes.sum().item() * 6 / (STEPS * BATCH))


@pytest.mark.parametrize("axis", [3, -4])
def test_an_input_without_the_time_axis_is_refused(axis, spikes):
    net = nn.Sequential(nn.Linear(4, 6))
    register_synops_hooks(net, time_axis=axis)
    with pytest.raises(ShapeError, match=rf"\(5, 3, 4\), in which time_axis={axis} .*names no axis of time"):
        net(spikes)


def test_an_input_with_time_but_no_samples_is_refused():
    net = nn.Sequential(nn.Linear(1, 6), nn.Flatten(0))
    register_synops_hooks(net, time_axis=0)
    with pytest.raises(ShapeError, match="beside one of samples"):
        net(torch.ones(1))


def test_a_module_without_a_tensor_to_tell_time_is_refused(spikes):
    class Fed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6)

        def forward(self, sequence):
            return [self.fc(x) for x in sequence]

    net = Fed()
    register_synops_hooks(net, time_axis=0)
    with pytest.raises(ShapeError, match="Fed got no tensor"):
        net(list(spikes))


# Containers and neurons of snn_core know where time is.


def unrolled(layers, x):
    """Every layer's input over the sequence, `[T, B, ...]`, by running each over all steps. layers: in order."""
    inputs = []
    for layer in layers:
        inputs.append(x)
        x = layer(x) if isinstance(layer, snn.LIF) else torch.stack([layer(x_t) for x_t in x])
    return inputs


def test_a_constant_input_counts_at_every_step_as_the_unrolled_network_would():
    net = snn.Sequential(snn.Constant(STEPS), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 8), snn.LIF(), nn.Linear(8, 2))
    x = torch.rand(BATCH, 4) * 4
    inputs = unrolled(list(net)[1:], x.expand(STEPS, BATCH, 4))
    frames = STEPS * BATCH
    expected = {
        "1": inputs[0].sum().item() * 6 / frames,
        "3": inputs[2].sum().item() * 8 / frames,
        "5": inputs[4].sum().item() * 2 / frames,
    }
    assert counted(net, x) == pytest.approx(expected, rel=1e-5)


def test_the_steps_may_be_given_with_the_input():
    net = snn.Sequential(nn.Linear(4, 6), snn.LIF(), nn.Linear(6, 2), snn.LIF())
    x = torch.rand(BATCH, 4) * 4
    register_synops_hooks(net)
    net(x, steps=STEPS)
    still = {name: value.item() for name, value in net.hook_data[EACH].items()}
    net(x.expand(STEPS, BATCH, 4))
    assert still == pytest.approx({name: value.item() for name, value in net.hook_data[EACH].items()}, rel=1e-6)


@pytest.mark.parametrize("nested", [False, True])
def test_a_convolutional_network_over_a_sequence_counts_each_step(nested):
    front = [nn.Conv2d(1, 2, 3), snn.LIF()]
    back = [snn.SumPool2d(2), nn.Flatten(), nn.Linear(18, 3), snn.LIF()]
    net = snn.Sequential(snn.Sequential(*front), snn.Sequential(*back)) if nested else snn.Sequential(*front, *back)
    x = torch.rand(STEPS, BATCH, 1, 8, 8) * 3
    inputs = unrolled([*front, *back], x)
    # a 3 x 3 kernel over 8 x 8: in each dimension the places meet 1, 2, 3, 3, 3, 3, 2, 1 taps
    taps = torch.tensor([1.0, 2, 3, 3, 3, 3, 2, 1])
    expected = [
        (inputs[0] * taps * taps.unsqueeze(1)).sum().item() * 2 / (STEPS * BATCH),
        inputs[4].sum().item() * 3 / (STEPS * BATCH),
    ]
    assert list(counted(net, x).values()) == pytest.approx(expected, rel=1e-5)


def test_a_block_between_neurons_is_counted_by_its_steps_however_it_uses_them():
    class Block(nn.Module):
        """A block with a neuron in it, which gets the whole sequence and folds, loops and runs it whole."""

        def __init__(self):
            super().__init__()
            self.folded, self.looped, self.whole = (nn.Linear(6, 6) for _ in range(3))
            self.neuron = snn.LIF()
            self.inner = snn.Sequential(nn.Linear(6, 6), snn.LIF())

        def forward(self, x):
            self.folded(x.flatten(0, 1))
            for x_t in x:
                self.looped(x_t)
            self.inner(x)
            return self.neuron(self.whole(x))

    net = snn.Sequential(nn.Linear(4, 6), snn.LIF(), Block(), nn.Linear(6, 2))
    x = torch.rand(STEPS, BATCH, 4) * 4
    found = counted(net, x)
    sent = net[1](net[0](x)).sum().item() * 6 / (STEPS * BATCH)
    names = ("2.folded", "2.looped", "2.whole", "2.inner.0")
    assert {name: found[name] for name in names} == pytest.approx(dict.fromkeys(names, sent), rel=1e-6)


def test_a_block_without_neurons_is_counted_by_its_samples_whatever_it_makes_of_them():
    class Patches(nn.Module):
        deterministic = True

        def __init__(self):
            super().__init__()
            self.each = nn.Linear(2, 5)

        def forward(self, x):
            return self.each(x.reshape(-1, 2)).reshape(len(x), -1)

    x = torch.rand(STEPS, BATCH, 4)
    expected = {"0.each": pytest.approx(x.sum().item() * 5 / (STEPS * BATCH))}
    assert counted(snn.Sequential(Patches(), snn.LIF()), x) == expected
    still = snn.Sequential(snn.Constant(STEPS), Patches(), snn.LIF())
    assert counted(still, x[0]) == {"1.each": pytest.approx(x[0].sum().item() * 5 / BATCH)}


def test_recurrent_weights_count_what_is_fed_back():
    rec = snn.Recurrent(snn.LIF(), nn.Linear(6, 6))
    net = snn.Sequential(nn.Linear(4, 6), rec, nn.Linear(6, 2))
    x = torch.rand(STEPS, BATCH, 4) * 6
    spikes = rec(net[0](x))
    assert spikes[:-1].sum() > 0
    # the last step's spikes are fed back to no step
    expected = spikes[:-1].sum().item() * 6 / (STEPS * BATCH)
    assert counted(net, x)["1.connection"] == pytest.approx(expected)


def test_a_recurrent_layer_in_a_plain_module_knows_its_time():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rec = snn.Recurrent(snn.LIF(), nn.Linear(4, 4))

        def forward(self, x):
            return self.rec(x)

    net, x = Net(), torch.rand(STEPS, BATCH, 4) * 2
    expected = {"rec.connection": pytest.approx(net(x)[:-1].sum().item() * 4 / (STEPS * BATCH))}
    assert counted(net, x) == expected
    assert counted(net, x, time_axis=0) == expected
    assert counted(net.rec, x) == {"connection": expected["rec.connection"]}


def test_a_recurrent_layer_on_a_constant_input_counts_its_steps():
    net = snn.Sequential(snn.Constant(STEPS), snn.Recurrent(snn.LIF(), nn.Linear(4, 4)))
    x = torch.rand(BATCH, 4) * 2
    assert counted(net, x)["1.connection"] == pytest.approx(net(x)[:-1].sum().item() * 4 / (STEPS * BATCH))


@pytest.mark.parametrize("features", [None, 4])
def test_a_one_to_one_connection_counts_each_spike_once(features):
    net = snn.Sequential(snn.Recurrent(snn.LIF(), snn.OneToOne(features)), nn.Linear(4, 2))
    x = torch.rand(STEPS, BATCH, 4) * 2
    fed_back = net[0](x)[:-1].sum().item()
    assert fed_back > 0
    assert counted(net, x)["0.connection"] == pytest.approx(fed_back / (STEPS * BATCH))


def test_a_one_to_one_layer_by_itself_counts_its_input():
    x = torch.rand(STEPS, BATCH, 4)
    assert counted(snn.Sequential(snn.OneToOne(4), snn.LIF()), x)["0"] == pytest.approx(x.sum().item() / STEPS / BATCH)


def test_a_one_to_one_connection_may_serve_two_layers():
    shared = snn.OneToOne(4)
    net = snn.Sequential(snn.Recurrent(snn.LIF(), shared), snn.Recurrent(snn.LIF(threshold=0.5), shared))
    x = torch.rand(STEPS, BATCH, 4) * 2
    first = net[0](x)
    fed_back = (first[:-1].sum() + net[1](first)[:-1].sum()).item()
    assert counted(net, x) == {"0.connection": pytest.approx(fed_back / (STEPS * BATCH))}


def test_a_spiking_lstm_counts_both_its_layers():
    net = snn.Sequential(snn.SLSTM(4, 3))
    x = torch.rand(STEPS, BATCH, 4)
    mem = net[0].run(x, wanted=("mem",))[2]["mem"]
    expected = {"0.input_weights": x.sum().item() * 12, "0.recurrent_weights": mem[:-1].abs().sum().item() * 12}
    found = counted(net, x)
    assert found == pytest.approx({name: value / (STEPS * BATCH) for name, value in expected.items()}, rel=1e-5)


def test_sinabs_recurrent_neuron_with_a_bias_counts_every_spike_that_it_weighs():
    rec = sinabs.LIFRecurrent(5.0, nn.Linear(4, 4))
    x = torch.rand(STEPS, BATCH, 4) * 9
    # it keeps the connection's output as its state, and so weighs the last step's spikes too
    assert counted(rec, x) == {"rec_connect": pytest.approx(rec(x).sum().item() * 4 / (STEPS * BATCH))}


def test_a_loop_over_a_container_counts_the_mean_over_its_steps_with_a_time_axis():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = snn.Sequential(nn.Linear(4, 6), nn.ReLU())

        def forward(self, x):
            return torch.cat([self.body(x_t.unsqueeze(0)) for x_t in x])

    x = torch.rand(STEPS, BATCH, 4)
    assert counted(Loop(), x, time_axis=0) == {"body.0": pytest.approx(x.sum().item() * 6 / (STEPS * BATCH))}


def test_a_constant_part_below_a_time_axis_counts_at_each_of_its_steps():
    class Summary(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = snn.Sequential(nn.Linear(4, 6), snn.LIF())

        def forward(self, x):
            return self.net(x[0], steps=len(x))

    x = torch.rand(STEPS, BATCH, 4)
    assert counted(Summary(), x, time_axis=0) == {"net.0": pytest.approx(x[0].sum().item() * 6 / BATCH)}
