"""Operations and annotations that a model's forward can call."""

from collections import OrderedDict

import torch

from ._device_tensor import IpuTensor, recorder
from ._errors import Error


def isRunningOnIpu():
    """Say whether forward is being traced for the IPU."""
    return recorder() is not None


def identity_loss(x, reduction):
    """Mark a tensor as the loss; reduction is "sum", "mean" or "none"."""
    assert reduction in ("sum", "mean", "none"), "Unsupported reduction type!"
    if reduction != "none":
        x = x.sum() if reduction == "sum" else x.mean()
    return recorder().loss(x) if isinstance(x, IpuTensor) else x


def nop(tensor):
    """Return the tensor."""
    return _identity(tensor, "nop")


def ipu_print_tensor(
    tensor,
    title="",
    print_gradient=True,
    summarise_threshold=1000,
    edge_items=3,
    max_line_width=80,
    digits=4,
    float_format="auto",
    separator=", ",
    open_bracket="(",
    close_bracket=")",
):
    """Return the tensor; the real one prints it at each run."""
    return _identity(tensor, "ipu_print_tensor")


def set_available_memory(tensor, available_memory_proportion):
    """Return the tensor; the real one bounds the memory of the operation that made it."""
    assert 0 <= available_memory_proportion <= 1
    return _identity(tensor, "set_available_memory")


def recomputationCheckpoint(*tensors):
    """Return the tensors; the real one keeps them from being computed again."""
    if len(tensors) == 1:
        if isinstance(tensors[0], (tuple, list)):
            return type(tensors[0])(recomputationCheckpoint(*tensors[0]))
        return _identity(tensors[0], "recomputationCheckpoint", ValueError)
    return tuple(_identity(tensor, "recomputationCheckpoint", ValueError) for tensor in tensors)


def _identity(tensor, name, error=Error):
    if not isinstance(tensor, torch.Tensor):
        raise error(f"{name} must take a torch.tensor argument. {type(tensor)} is not supported.")
    return tensor


def _only_for_inference(name):
    if isRunningOnIpu() and recorder().training:
        raise Error(f"poptorch.{name} is supported in inference models only")


def for_loop(count, body, inputs):
    """Run body count times; inference only. inputs is a list of tensors."""
    if not isinstance(inputs, list) or not all(isinstance(tensor, torch.Tensor) for tensor in inputs):
        raise ValueError("poptorch.for_loop expects input tensors (inputs) to be a list of tensors.")
    _only_for_inference("for_loop")
    values = [tensor.clone() for tensor in inputs]
    for _ in range(count):
        values = body(*values)
        values = list(values) if isinstance(values, (list, tuple)) else [values]
    return values


class CPU:
    """Run a function on the host; inference only."""

    def __init__(self, layer_to_call, ID):
        self._layer_to_call = layer_to_call
        self._ID = ID

    def __call__(self, *input, **kwargs):
        _only_for_inference("CPU")
        return self._layer_to_call(*input, **kwargs)


class Block(torch.nn.Module):
    """Put what is called inside the `with` into a block."""

    # The stages' manager while a model is traced, None otherwise: then blocks do nothing.
    _stages_manager = None

    def __init__(self, user_id=None, ipu_id=None):
        super().__init__()
        self._user_id = user_id
        self._ipu_id = ipu_id

    @staticmethod
    def useAutoId():
        """Count blocks without an id from 0."""
        if Block._stages_manager is not None:
            Block._stages_manager.resetAutoId()

    @staticmethod
    def start(user_id=None, ipu_id=None):
        """Begin a block that lasts until the next."""
        if Block._stages_manager is not None:
            Block._stages_manager.beginStage(user_id, ipu_id, len(recorder().nodes))

    def __enter__(self):
        Block.start(self._user_id, self._ipu_id)

    def __exit__(self, type, value, traceback):
        pass


class _BlockHook:
    def __init__(self, user_id, ipu_id):
        self._user_id = user_id
        self._ipu_id = ipu_id

    def __call__(self, module, input):
        if Block._stages_manager is not None and self._user_id is None:
            self._user_id = Block._stages_manager.nextAutoId()
        Block.start(self._user_id, self._ipu_id)


def BeginBlock(layer_to_call, user_id=None, ipu_id=None):
    """Begin a block at a module of a model."""
    if not isinstance(layer_to_call, torch.nn.Module):
        raise Error("module is not an instance of torch.nn.Module or function.")
    if any(isinstance(hook, _BlockHook) for hook in layer_to_call._forward_pre_hooks.values()):
        raise Error("module has already been assigned to a block.")
    layer_to_call.register_forward_pre_hook(_BlockHook(user_id, ipu_id))
    return layer_to_call


def BlockFunction(user_id=None, ipu_id=None):
    """Put what a function calls into a block."""

    def decorator(function):
        def wrapper(*args, **kwargs):
            with Block(user_id, ipu_id):
                return function(*args, **kwargs)

        return wrapper

    return decorator


def removeBlocks(module):
    """Take the blocks off a module and all within."""
    assert isinstance(module, torch.nn.Module)
    for inner in module.modules():
        hooks = inner._forward_pre_hooks.items()
        inner._forward_pre_hooks = OrderedDict((key, hook) for key, hook in hooks if not isinstance(hook, _BlockHook))
