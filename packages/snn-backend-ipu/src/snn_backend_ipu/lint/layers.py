"""What of a model's layers and tensors the device does not take, whatever the step does with them."""

from typing import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

from snn_backend_ipu.lint.rules import Findings
from snn_backend_ipu.lint.state import made_at

__all__ = ["check_layers", "check_tensors"]


def check_layers(model: nn.Module, findings: Findings) -> None:
    """Add each layer with a setting that PopTorch's list of supported operations leaves out, by its path in the model,
    at the line of the constructor that makes it.
    """
    for name, module in model.named_modules():
        for setting in _unsupported(module):
            findings.add(
                "layer-setting", made_at(name, model), f"layer {name!r}, {type(module).__name__}, has {setting}"
            )


def check_tensors(model: nn.Module, findings: Findings) -> None:
    """Add each buffer or parameter that cannot be moved to the device, at the line of the constructor that makes it."""
    for kind, tensors in (("buffer", model.named_buffers()), ("parameter", model.named_parameters())):
        for name, tensor in tensors:
            for reason in _unfit(kind, tensor):
                findings.add("unfit-tensor", made_at(name, model), f"{kind} {name!r} {reason}")


def _unfit(kind: str, tensor: Tensor) -> Iterator[str]:
    if kind == "buffer" and isinstance(tensor, nn.Parameter):
        yield "is an nn.Parameter"
    if tensor.numel() == 0:
        yield f"has no elements (shape {list(tensor.shape)})"
    if tensor.is_complex():
        yield f"is of type {str(tensor.dtype).replace('torch.', '')}"


def _unsupported(module: nn.Module) -> Iterator[str]:
    if isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
        affine = module.elementwise_affine if isinstance(module, nn.LayerNorm) else module.affine
        if not affine:
            yield "no weight and bias of its own (affine=False), which the device's normalisation needs"
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        if module.padding_idx is not None:
            yield "padding_idx, which the device has not"
    elif isinstance(module, _ConvTransposeNd):
        if any(size != 1 for size in module.dilation):
            yield "a dilation, which the device's transposed convolution has not"
    elif isinstance(module, nn.RNNBase):
        yield from _unsupported_recurrence(module)


def _unsupported_recurrence(module: nn.RNNBase) -> Iterator[str]:
    if module.bidirectional:
        yield "bidirectional=True, which the device has not"
    if module.num_layers > 1:
        yield f"num_layers={module.num_layers}, and the device has 1"
    if module.dropout:
        yield f"dropout={module.dropout}, and the device has 0"
    if not module.bias and not isinstance(module, nn.GRU):
        yield "bias=False, which the device has in nn.GRU alone"
