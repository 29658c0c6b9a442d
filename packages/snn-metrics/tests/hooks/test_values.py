"""What the hooks leave, against the layers themselves: with weights of 1, a layer's output sums up its operations."""

import copy

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_metrics.hooks import register_synops_hooks

LAYERS = {
    "linear": (nn.Linear(6, 3), (6,)),
    "linear over positions": (nn.Linear(6, 3), (4, 5, 6)),
    "conv1d": (nn.Conv1d(2, 3, 3, stride=2, dilation=2, padding=3), (2, 9)),
    "conv2d": (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 7, 8)),
    "conv3d": (nn.Conv3d(1, 2, 2), (1, 3, 4, 5)),
    "transposed 1d": (nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 5)),
    "transposed 2d": (nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 4, 5)),
    "transposed 3d": (nn.ConvTranspose3d(1, 2, 2, dilation=2), (1, 2, 3, 4)),
    "same padding": (nn.Conv2d(1, 2, 4, padding="same"), (1, 6, 5)),
    "valid padding": (nn.Conv2d(1, 2, 3, padding="valid"), (1, 6, 5)),
    "circular padding": (nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 6, 5)),
    "reflecting padding": (nn.Conv1d(1, 2, 5, padding=2, padding_mode="reflect"), (1, 6)),
    "replicating padding": (nn.Conv1d(1, 2, 5, padding=2, padding_mode="replicate"), (1, 6)),
}
TOTAL, EACH = "total_synops_per_timestep", "synops_per_timestep"


def applied(layer, x):
    """All operations of a call: what the layer makes of |x| when every weight is 1."""
    ones = copy.deepcopy(layer).double()
    for parameter in ones.parameters():
        nn.init.ones_(parameter)
    if ones.bias is not None:
        nn.init.zeros_(ones.bias)
    return ones(x.detach().double().abs()).sum().item()


def counted(module, *args, **settings):
    """The values by layer of one forward, and that their total is their sum."""
    with register_synops_hooks(module, **settings):
        module(*args)
        data = module.hook_data
        assert data[TOTAL].item() == pytest.approx(sum(value.item() for value in data[EACH].values()), rel=1e-6)
        return {name: value.item() for name, value in data[EACH].items()}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_counts_the_mean_over_samples_of_what_it_applies(name):
    layer, shape = copy.deepcopy(LAYERS[name])
    x = torch.randn(3, *shape)
    expected = applied(layer, x) / 3
    assert counted(nn.Sequential(layer), x) == {"0": pytest.approx(expected, rel=1e-6)}


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d", "conv3d", "transposed 2d"])
def test_an_input_without_a_batch_is_one_sample(name):
    layer, shape = copy.deepcopy(LAYERS[name])
    x = torch.randn(*shape)
    assert counted(nn.Sequential(layer), x) == {"0": pytest.approx(applied(layer, x), rel=1e-6)}


def test_a_module_that_is_a_weight_layer_counts_itself():
    layer, x = nn.Linear(4, 5), torch.ones(2, 4)
    assert counted(layer, x) == {"": 20.0}


def test_layers_count_at_any_depth_under_their_names():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

        def forward(self, x):
            return x + self.branch(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([Residual(), Residual()])
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.head(x)

    net, x = Net(), torch.randn(3, 4)
    expected, h = {}, x
    for index, stage in enumerate(net.stages):
        expected[f"stages.{index}.branch.0"] = h.abs().sum().item() * 4 / 3
        hidden = torch.relu(stage.branch[0](h))
        expected[f"stages.{index}.branch.2"] = hidden.abs().sum().item() * 4 / 3
        h = h + stage.branch[2](hidden)
    expected["head"] = h.abs().sum().item() * 2 / 3
    assert counted(net, x) == pytest.approx(expected, rel=1e-5)


def test_values_per_second_are_those_per_step_over_its_length():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    register_synops_hooks(net, dt_s=0.004)
    net(torch.ones(2, 4))
    data = net.hook_data
    assert set(data) == {TOTAL, EACH, "total_synops_per_second", "synops_per_second"}
    assert data["synops_per_second"]["0"].item() == pytest.approx(20 / 0.004)
    assert data["total_synops_per_second"].item() == pytest.approx(data[TOTAL].item() / 0.004)
    assert net[0].hook_data == {EACH: data[EACH]["0"], "synops_per_second": data["synops_per_second"]["0"]}


def test_without_the_length_of_a_step_nothing_is_said_per_second():
    net = nn.Sequential(nn.Linear(4, 5))
    register_synops_hooks(net)
    net(torch.ones(2, 4))
    assert set(net.hook_data) == {TOTAL, EACH}
    assert net[0].hook_data == {EACH: net.hook_data[EACH]["0"]}


def test_values_are_0d_tensors_with_a_gradient():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    register_synops_hooks(net, dt_s=1.0)
    net(torch.randn(2, 4, requires_grad=True))
    for value in (net.hook_data[TOTAL], *net.hook_data[EACH].values(), net.hook_data["total_synops_per_second"]):
        assert value.shape == ()
        assert value.requires_grad


def test_graded_and_negative_inputs_count_by_their_size():
    x = torch.tensor([[-3.0, 0.0, 0.5, 1.0]])
    assert counted(nn.Sequential(nn.Linear(4, 10)), x) == {"0": 45.0}


class WideConv2d(nn.Conv2d):
    """Half-precision weights on a CPU for which an old torch has no half-precision convolution."""

    def forward(self, x):
        return nn.functional.conv2d(x.float(), self.weight.float(), padding=self.padding).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    layer = WideConv2d(1, 64, 3, padding=1).to(dtype)
    x = torch.full((2, 1, 64, 64), 8.0, dtype=dtype)
    # per dimension 64 + 2 * 63 pairs; 64 channels out; 8 each
    assert counted(nn.Sequential(layer), x) == {"0": 8.0 * 64 * (64 + 2 * 63) ** 2}


def test_an_average_pool_before_batch_norm_counts_as_a_sum_pool():
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(1).eval(), nn.Conv2d(1, 3, 1))
    x = torch.ones(2, 1, 4, 6)
    # 6 windows of 4 spikes, each to 3 neurons; batch norm divides by sqrt(1 + eps)
    assert counted(pooled, x) == {"2": pytest.approx(6 * 4 * 3, rel=1e-4)}
    assert counted(pooled, x, pooling="none") == {"2": pytest.approx(6 * 3, rel=1e-4)}
    assert counted(pooled, x, pooling={"2": 10.0}) == {"2": pytest.approx(6 * 3 * 10, rel=1e-4)}


def test_all_calls_of_a_layer_in_one_forward_count():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(input=self.fc(x) * 0 + 1)

    assert counted(Twice(), torch.ones(3, 4) * 2) == {"fc": 2.0 * 16 + 16}


def test_a_forward_counts_anew():
    net = nn.Sequential(nn.Linear(4, 5))
    register_synops_hooks(net)
    for x in (torch.ones(2, 4), torch.zeros(1, 4), torch.ones(7, 4) * 3):
        net(x)
        assert net.hook_data[TOTAL].item() == x.abs().sum().item() * 5 / len(x)


def test_a_layer_that_is_called_beside_the_module_counts_nothing():
    net = nn.Sequential(nn.Linear(4, 5))
    register_synops_hooks(net)
    net[0](torch.ones(2, 4))
    assert net.hook_data == {}
    net(torch.ones(2, 4))
    net[0](torch.ones(2, 4))
    assert net.hook_data[TOTAL].item() == 20


def test_a_forward_after_one_that_failed_counts_itself_alone():
    net = nn.Sequential(nn.Linear(4, 5), nn.Unflatten(1, (5, 1)), nn.Flatten(), nn.Linear(5, 2))
    register_synops_hooks(net)
    x = torch.ones(2, 4)
    net(x)
    before = net.hook_data[TOTAL].item()
    net[1].unflattened_size = (7,)
    with pytest.raises(RuntimeError, match="unflatten"):
        net(x)
    net[1].unflattened_size = (5, 1)
    net(x)
    assert net.hook_data[TOTAL].item() == before


def test_a_layer_that_may_rest_counts_nothing_when_it_does():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, both):
            return self.always(x) + (self.sometimes(x) if both else 0)

    net, x = Gated(), torch.ones(1, 4)
    assert counted(net, x, True, may_rest=["sometimes"]) == {"always": 16, "sometimes": 16}
    assert counted(net, x, False, may_rest=["sometimes"]) == {"always": 16, "sometimes": 0}


def test_the_model_computes_what_it_did_without_hooks():
    net = snn.Sequential(snn.Constant(4), nn.Conv2d(1, 2, 3), snn.LIF(), nn.Flatten(), nn.Linear(72, 3), snn.LIF())
    x = torch.rand(2, 1, 8, 8)
    before = net(x)
    with register_synops_hooks(net):
        assert torch.equal(net(x), before)
    assert torch.equal(net(x), before)
