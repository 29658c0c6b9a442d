"""Core's optimiser specs as poptorch's optimisers."""

from typing import Any, Callable, Dict, Mapping, Sequence

import torch
from torch import Tensor

from snn_backend_ipu.calls import call, read
from snn_backend_ipu.options import IpuOptions
from snn_core.errors import CheckpointError
from snn_core.optimizers import Optimizer
from snn_core.specs import TrainSpec

__all__ = ["NAMES", "build", "has_accumulated", "saved_rate", "set_rate"]

_CLASSES = {"sgd": "optim.SGD", "adam": "optim.Adam", "adamw": "optim.AdamW", "rmsprop": "optim.RMSprop"}
NAMES = frozenset(_CLASSES)

_DEFAULTS: Dict[str, Any] = {"momentum": 0.0, "dampening": 0.0, "loss_scaling": 1.0, "accum_type": torch.float32}
_SETTINGS: Dict[str, Callable[[Any], Dict[str, Any]]] = {
    "sgd": lambda spec: {"momentum": spec.momentum, "dampening": spec.dampening},
    "adam": lambda spec: {"betas": tuple(spec.betas), "eps": spec.eps},
    "adamw": lambda spec: {"betas": tuple(spec.betas), "eps": spec.eps},
    "rmsprop": lambda spec: {"alpha": spec.alpha, "eps": spec.eps, "momentum": spec.momentum},
}


def build(
    spec: Optimizer, parameters: Sequence[Tensor], train: TrainSpec, options: IpuOptions
) -> torch.optim.Optimizer:
    """Make poptorch's optimiser for `parameters`, its learning rate marked as variable."""
    settings = {
        "weight_decay": spec.weight_decay,
        "loss_scaling": options.loss_scaling,
        "accum_type": getattr(torch, options.accumulator),
        **_SETTINGS[spec.name](spec),
    }
    if train.clip_norm is not None:
        settings["max_grad_norm"] = train.clip_norm
    # what is left at its default is a constant of the compiled step, and a momentum of 0 takes no memory then
    defaults = {**_DEFAULTS, "weight_decay": 0.01 if spec.name == "adamw" else 0.0}
    given = {name: value for name, value in settings.items() if value != defaults.get(name)}
    optimizer: Any = call(_CLASSES[spec.name], params=parameters, lr=spec.lr, **given)
    variable = read("optim.Optimizer.variable_attrs", optimizer)
    call("optim.VariableAttributes.markAsVariable", variable, attr="lr")
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Write a learning rate where poptorch reads it when the optimiser is set again."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def has_accumulated(state: Mapping[str, Any]) -> bool:
    """Whether an optimiser's state holds what the device accumulated; one that never ran has nothing."""
    return state.get("ipu_state") is not None and state.get("ipu_param") is not None


def saved_rate(saved: Mapping[str, Any], name: str) -> float:
    """The learning rate of a saved optimiser. Raises CheckpointError unless it is the optimiser `name`."""
    if saved.get("name") != name:
        raise CheckpointError(
            f"the saved optimizer is {saved.get('name')!r}, this run's {name!r}; use that of the saved run"
        )
    try:
        return float(saved["state"]["param_groups"][0]["lr"])
    except (IndexError, KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"the saved optimizer has no learning rate: {exc!r}; use another checkpoint") from exc
