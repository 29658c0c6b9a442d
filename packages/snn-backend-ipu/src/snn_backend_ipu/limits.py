"""What poptorch would compile and get wrong, or has nothing to do with."""

from typing import Iterator, Tuple

from torch import nn

from snn_backend_ipu.layout import Layout
from snn_core.errors import ConfigError, Unsupported

__all__ = ["require_one_replica", "require_possible"]


def require_possible(model: nn.Module) -> None:
    """Raise ConfigError for a model with nothing to train, Unsupported for what the device would get wrong."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "the model has no trainable parameters; add a layer with weights, or set requires_grad=True on one"
        )
    for name, norm in _norms(model):
        if norm.momentum is None:
            raise Unsupported(
                f"layer {name!r} is a batch norm with momentum=None, which counts batches, and on an IPU an integer "
                "buffer is a constant; give it a momentum such as 0.1"
            )


def require_one_replica(model: nn.Module, cut: Layout) -> None:
    """Raise Unsupported for what several replicas would come to disagree on."""
    replicas = cut.replicas * cut.processes
    for name, _ in _norms(model):
        if replicas > 1:
            raise Unsupported(
                f"layer {name!r} is a batch norm, whose running statistics would differ between the {replicas} "
                "replicas; use one replica, or GroupNorm or LayerNorm"
            )


def _norms(model: nn.Module) -> Iterator[Tuple[str, nn.modules.batchnorm._BatchNorm]]:
    """The batch norms that keep running statistics, by name."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            yield name, module
