"""Denormal numbers: flushed inside the kernels, in every thread, and left alone outside."""

import pytest
import torch

from snn_backend_cpu.fused import Fused
from snn_core.neurons import LI

TINY = 1e-40


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def decaying() -> LI:
    neuron = LI(0.5)
    neuron.runner = Fused(neuron, torch.float32)
    return neuron


@pytest.mark.usefixtures("two_threads")
def test_denormal_membranes_become_zero_in_every_thread_and_the_mode_comes_back() -> None:
    x = torch.zeros(200, 8, 500)
    x[0] = 1.0
    out = decaying()(x)
    assert float(out[-1].abs().max()) == 0.0
    assert float(out[out != 0].abs().min()) >= torch.finfo(torch.float32).tiny
    assert float(torch.tensor(TINY) * torch.tensor(1.0)) > 0.0
