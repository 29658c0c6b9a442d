"""Optimisers without torch's compiler: the same numbers and states, and no import of it."""

import subprocess
import sys
from typing import Any, Dict, Type

import pytest
import torch
from torch import nn

from snn_core.uncompiled import uncompiled

OPTIMIZERS: Dict[Type[torch.optim.Optimizer], Dict[str, Any]] = {
    torch.optim.SGD: {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    torch.optim.Adam: {"lr": 0.01},
    torch.optim.AdamW: {"lr": 0.01, "weight_decay": 0.1},
    torch.optim.RMSprop: {"lr": 0.01, "momentum": 0.5, "centered": True},
}


def trained(optimizer: Any, model: nn.Module, steps: int) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_steps_are_torchs_to_the_bit(kind: Type[torch.optim.Optimizer]) -> None:
    weights = []
    for cls in (kind, uncompiled(kind)):
        net = model()
        trained(cls(net.parameters(), **OPTIMIZERS[kind]), net, 5)
        weights.append(net.weight.detach())
    assert torch.equal(*weights)


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_a_state_goes_from_torchs_to_ours_and_back(kind: Type[torch.optim.Optimizer]) -> None:
    whole, parts = model(), model()
    trained(kind(whole.parameters(), **OPTIMIZERS[kind]), whole, 6)
    state: Any = None
    for cls in (kind, uncompiled(kind), kind):
        optimizer = cls(parts.parameters(), **OPTIMIZERS[kind])
        if state is not None:
            optimizer.load_state_dict(state)
        trained(optimizer, parts, 2)
        state = optimizer.state_dict()
    assert torch.equal(whole.weight, parts.weight)


def test_a_step_leaves_no_graph_and_the_gradient_mode_as_it_was() -> None:
    net = model()
    trained(uncompiled(torch.optim.SGD)(net.parameters(), lr=0.1), net, 1)
    assert net.weight.grad_fn is None
    assert torch.is_grad_enabled()


FIRST_STEP = """
import sys, torch
brought = set(sys.modules)
import snn_core as snn
from torch import nn
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
model = snn.Sequential(snn.Constant(steps=3), nn.Linear(4, 4), snn.LIF(0.9))
batch = BatchSpec(2, TensorSpec((4,), "float32"), TensorSpec((), "int64"))
step = snn.Step(model, snn.CountCrossEntropy())
program = snn.EagerBackend().compile(step, snn.Adam(), batch, TrainSpec())
program.train_step((torch.rand(2, 4), torch.tensor([0, 1])))
print(sorted(name for name in ("torch._dynamo", "sympy") if name in set(sys.modules) - brought))
"""


def test_a_first_step_imports_no_compiler() -> None:
    found = subprocess.run([sys.executable, "-c", FIRST_STEP], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
