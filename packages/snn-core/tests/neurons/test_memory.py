"""SLSTM against torch's own LSTM cell, SConv2dLSTM against its equations, both with every reset."""

from typing import Dict, List, Tuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import SLSTM, SConv2dLSTM

THRESHOLD = 0.1


def reset_by_hand(mem: Tensor, fired: Tensor, mechanism: str) -> Tensor:
    if mechanism == "subtract":
        return mem - fired * THRESHOLD
    return torch.where(fired > 0, torch.zeros_like(mem), mem) if mechanism == "zero" else mem


@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
@pytest.mark.parametrize("bias", [True, False])
def test_slstm_is_torchs_lstm_cell_with_a_firing_hidden_state(mechanism: str, delay: bool, bias: bool) -> None:
    torch.manual_seed(0)
    cell = nn.LSTMCell(4, 6, bias=bias).double()
    layer = SLSTM(4, 6, bias=bias, threshold=THRESHOLD, reset_mechanism=mechanism, reset_delay=delay).double()
    layer.threshold.fill_(THRESHOLD)
    layer.input_weights.load_state_dict({k[:-3]: v for k, v in cell.state_dict().items() if k.endswith("_ih")})
    layer.recurrent_weights.load_state_dict({k[:-3]: v for k, v in cell.state_dict().items() if k.endswith("_hh")})
    x = torch.randn(20, 3, 4, dtype=torch.float64)
    mem = syn = fired = torch.zeros(3, 6, dtype=torch.float64)
    outs: List[Tensor] = []
    for x_t in x:
        if delay and mechanism == "zero":  # the input of this step survives the reset of the last
            mem = reset_by_hand(mem, fired, mechanism)
        mem, syn = cell(x_t, (mem, syn))
        if delay and mechanism == "subtract":
            mem = reset_by_hand(mem, fired, mechanism)
        fired = (mem >= THRESHOLD).double()
        outs.append(fired)
        if not delay:
            mem = reset_by_hand(mem, fired, mechanism)
    wanted = torch.stack(outs)
    assert 0.05 < wanted.mean() < 0.6
    out, state = layer.unroll(x)
    assert torch.equal(out, wanted)
    torch.testing.assert_close(state, (mem, syn), rtol=1e-12, atol=1e-12)


def test_slstm_starts_with_the_weights_that_torchs_cell_would_draw() -> None:
    torch.manual_seed(3)
    layer = SLSTM(7, 16)
    values = torch.cat([p.flatten() for p in layer.parameters()])
    assert values.abs().max().item() <= 0.25
    assert values.abs().mean().item() == pytest.approx(0.125, rel=0.05)


@pytest.mark.parametrize(("pool", "size"), [(None, (5, 6)), ("max", (2, 3)), ("avg", (2, 3))])
@pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
def test_sconv2dlstm_is_the_convolutional_lstm_of_the_paper(pool: str, size: Tuple[int, int], mechanism: str) -> None:
    torch.manual_seed(0)
    pools = {} if pool is None else {f"{pool}_pool": 2}
    layer = SConv2dLSTM(2, 3, 3, threshold=THRESHOLD, reset_mechanism=mechanism, **pools).double()
    layer.threshold.fill_(THRESHOLD)
    # one kernel for each gate and each of its two arguments, as the paper writes it
    weight, bias = layer.conv.weight.detach(), layer.conv.bias.detach()  # type: ignore[union-attr]
    w_x = dict(zip("ifog", weight[:, :2].split(3)))
    w_h = dict(zip("ifog", weight[:, 2:].split(3)))
    b = dict(zip("ifog", bias.split(3)))
    x = torch.randn(8, 2, 2, 5, 6, dtype=torch.float64)
    mem = syn = torch.zeros(2, 3, 5, 6, dtype=torch.float64)
    outs: List[Tensor] = []
    for x_t in x:
        gate = {k: F.conv2d(x_t, w_x[k], b[k], padding=1) + F.conv2d(mem, w_h[k], padding=1) for k in "ifog"}
        syn = torch.sigmoid(gate["f"]) * syn + torch.sigmoid(gate["i"]) * torch.tanh(gate["g"])
        mem = torch.sigmoid(gate["o"]) * torch.tanh(syn)
        seen = {None: mem, "max": F.max_pool2d(mem, 2), "avg": F.avg_pool2d(mem, 2)}[pool]
        outs.append((seen >= THRESHOLD).double())
        mem = reset_by_hand(mem, (mem >= THRESHOLD).double(), mechanism)
    out, state = layer.unroll(x)
    wanted = torch.stack(outs)
    assert out.shape == (8, 2, 3, *size)
    assert 0.02 < wanted.mean() < 0.9
    assert torch.equal(out, wanted)
    torch.testing.assert_close(state, (mem, syn), rtol=1e-12, atol=1e-12)


def test_slstm_gradients_are_those_of_torchs_cell_where_nothing_fires() -> None:
    class Analogue(SLSTM):
        """Sends its membrane instead of spikes."""

        def emit(self, mem: Tensor, spk: Tensor, c: Dict[str, Tensor]) -> Tensor:
            return mem

    torch.manual_seed(0)
    cell = nn.LSTMCell(4, 6).double()
    layer = Analogue(4, 6).double()
    layer.input_weights.load_state_dict({"weight": cell.weight_ih, "bias": cell.bias_ih})
    layer.recurrent_weights.load_state_dict({"weight": cell.weight_hh, "bias": cell.bias_hh})
    x = torch.randn(7, 3, 4, dtype=torch.float64)
    mem = syn = torch.zeros(3, 6, dtype=torch.float64)
    outs = []
    for x_t in x:
        mem, syn = cell(x_t, (mem, syn))
        outs.append(mem)
    torch.stack(outs).square().sum().backward()
    layer(x).square().sum().backward()
    pairs = [
        (layer.input_weights.weight, cell.weight_ih),
        (layer.input_weights.bias, cell.bias_ih),
        (layer.recurrent_weights.weight, cell.weight_hh),
        (layer.recurrent_weights.bias, cell.bias_hh),
    ]
    for got, wanted in pairs:
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-10, atol=1e-12)


def test_gates_of_a_coarse_model_open_in_float32() -> None:
    torch.manual_seed(0)
    layer = SLSTM(4, 6).bfloat16()
    x = torch.randn(1, 3, 4).bfloat16()
    rest = torch.zeros(3, 6, dtype=torch.bfloat16)
    gates = layer.input_weights(x[0]).float() + layer.recurrent_weights(rest).float()
    i, _, g, o = gates.chunk(4, dim=1)
    syn = torch.sigmoid(i) * torch.tanh(g)
    _, state = layer.unroll(x)
    assert torch.equal(state[1], syn)
    assert torch.equal(state[0], torch.sigmoid(o) * torch.tanh(syn))


def test_one_threshold_for_each_hidden_channel() -> None:
    torch.manual_seed(0)
    layer = SLSTM(4, 3, threshold=[0.0, 0.5, 2.0])
    rates = layer(torch.randn(40, 5, 4)).mean(dim=(0, 1)).tolist()
    assert rates[0] > rates[1]
    assert rates[2] == 0.0
    layer2 = SConv2dLSTM(1, 2, 3, max_pool=2, threshold=[0.0, 2.0], gain=[3.0, 1.0])
    out = layer2(torch.randn(9, 2, 1, 4, 4))
    assert set(out[:, :, 0].flatten().tolist()) <= {0.0, 3.0}
    assert out[:, :, 0].sum().item() > 0
    assert out[:, :, 1].sum().item() == 0


def test_weights_in_the_time_loop_are_declared() -> None:
    assert SLSTM(2, 2).recurrence
    assert SConv2dLSTM(2, 2, 1).recurrence


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 2, 5), r"it takes \[T, B, 4\]"), ((3, 2, 4, 1), r"it takes \[T, B, 4\]")],
)
def test_slstm_refuses_other_inputs(shape: Tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        SLSTM(4, 6)(torch.zeros(shape))
    with pytest.raises(ShapeError, match=r"SLSTM got x of shape \(2, 5\); it takes \[B, 4\]"):
        SLSTM(4, 6)(torch.zeros(2, 5), steps=3)


def test_sconv2dlstm_refuses_other_inputs_and_settings() -> None:
    with pytest.raises(ShapeError, match=r"SConv2dLSTM got x of shape \(3, 2, 4, 5, 5\); it takes \[T, B, 1, H, W\]"):
        SConv2dLSTM(1, 2, 3)(torch.zeros(3, 2, 4, 5, 5))
    with pytest.raises(ConfigError, match="max_pool=2 and avg_pool=2; give one or neither"):
        SConv2dLSTM(1, 2, 3, max_pool=2, avg_pool=2)
    with pytest.raises(ConfigError, match="kernel_size is 4; it must be odd"):
        SConv2dLSTM(1, 2, 4)
    with pytest.raises(ConfigError, match=r"SLSTM\.hidden_size is 0; it must be 1 or more"):
        SLSTM(3, 0)
