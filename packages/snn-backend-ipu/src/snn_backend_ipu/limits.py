"""What poptorch would compile and get wrong, or has nothing to do with."""

from torch import nn

from snn_backend_ipu.layout import Layout
from snn_core.errors import ConfigError, Unsupported

__all__ = ["require_possible"]


def require_possible(model: nn.Module, cut: Layout) -> None:
    """Raise ConfigError for a model with nothing to train, Unsupported for what the device would get wrong."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "the model has no trainable parameters; add a layer with weights, or set requires_grad=True on one"
        )
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm) or not module.track_running_stats:
            continue
        if module.momentum is None:
            raise Unsupported(
                f"layer {name!r} is a batch norm with momentum=None, which counts batches, and on an IPU an integer "
                "buffer is a constant; give it a momentum such as 0.1"
            )
        if cut.replicas * cut.processes > 1:
            raise Unsupported(
                f"layer {name!r} is a batch norm, whose running statistics would differ between the "
                f"{cut.replicas * cut.processes} replicas; use one replica, or GroupNorm or LayerNorm"
            )
