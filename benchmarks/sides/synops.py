"""Counting synaptic operations in a training step: the network of sinabs' tutorial "Training an ANN with fewer SynOps".

One step without counting and one with it, by hooks on plain torch modules; the count stands in the loss.
"""

from typing import Any, Callable, Dict, List, Mapping, Tuple

import torch
from torch import Tensor, nn

from sides.work import Work, learnt

__all__ = ["TARGET", "batch", "hooked", "layers"]

TARGET = 2e7
Kinds = Tuple[Callable[[], nn.Module], Callable[[int], nn.Module]]


def batch(settings: Mapping[str, Any]) -> Tuple[Tensor, Tensor]:
    """One batch in the shape of MNIST, pixels from 0 to 255, most of them 0."""
    generator = torch.Generator().manual_seed(0)
    shape = (settings["batch"], 1, 28, 28)
    x = 255 * torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.2)
    return x.floor(), torch.randint(0, 10, shape[:1], generator=generator)


def layers(kinds: Kinds) -> List[nn.Module]:
    """The layers, with the given classes of ReLU and pool."""
    relu, pool = kinds
    torch.manual_seed(0)
    return [
        nn.Conv2d(1, 16, 5, bias=False), relu(), pool(2), nn.Conv2d(16, 32, 5, bias=False), relu(), pool(2),
        nn.Conv2d(32, 120, 4, bias=False), relu(), nn.Flatten(), nn.Linear(120, 10, bias=False),
    ]  # fmt: skip


def hooked(kinds: Kinds, register: Callable[[nn.Module], object], settings: Mapping[str, Any]) -> Work:
    """A step without counting, "plain", and one with the given hooks, "counted"."""
    plain, counted = nn.Sequential(*layers(kinds)), nn.Sequential(*layers(kinds))
    register(counted)
    x, target = batch(settings)
    last: List[Tensor] = []

    def stepper(model: nn.Module, counts: bool) -> Callable[[], None]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), target)
            last[:] = [loss.detach()]
            if counts:
                data: Any = model.hook_data
                loss = loss + torch.relu(torch.log(data["total_synops_per_timestep"] / TARGET))
            loss.backward()
            optimizer.step()

        return step

    def facts() -> Dict[str, Any]:
        return {"parameters": learnt(plain), "output": [len(x), 10]}

    return Work({"plain": stepper(plain, False), "counted": stepper(counted, True)}, lambda: float(last[0]), facts)
