"""Running forward once, on a model whose parameters and buffers are the device's."""

import collections
import warnings

import torch

from . import _contract, _wrapping
from ._defaults import device_by_default
from ._device_tensor import DEVICE, IpuTensor, Recorder, demoted, storage
from ._errors import Error, compiler_error
from ._executable import check_type
from ._graph import Graph
from ._options_parts import logger
from ._structure import check_returned, mapped, tensors_of
from .ops import Block


def traced(model, bound, options, optimizer):
    """Trace the model's forward and put the host's weights back. bound: forward's arguments.

    Returns the graph, what forward returned, and the group of each trained parameter. optimizer: None for inference.

    Here, as in the real one, a failure before `cpu_aliases` is known is hidden by the UnboundLocalError of its own
    clean-up. The same clean-up puts back what has a second name, and knows parameters alone: KeyError for a buffer.
    """
    recorder = Recorder(optimizer is not None)
    manager = options._execution_strategy._stages_manager
    manager.reset()
    try:
        cpu_params, cpu_buffers = owned(model, "_parameters"), owned(model, "_buffers")
        names = {id(value): name for name, value in [*model.named_parameters(), *model.named_buffers()]}
        moved = move(recorder, cpu_params, cpu_buffers, names)
        cpu_aliases = second_names(model)
        groups = groups_of(optimizer, names)
        bound.arguments = inputs = mapped(dict(bound.arguments), lambda tensor: recorder.leaf(tensor.clone()))
        buffers = owned(model, "_buffers")
        before = [None if value is None else value._value.clone() for _, _, value in buffers]
        Block._stages_manager = manager
        _contract.traces.append(type(model).__name__)
        # the device has random numbers of its own
        with torch.random.fork_rng(devices=[]), device_by_default(DEVICE), recorder.tracing():
            _contract.reach("trace")
            result = model(*bound.args, **bound.kwargs)
            check_returned(result)
        reassigned = [name for module, name, value in buffers if module._buffers.get(name) is not value]
    finally:
        Block._stages_manager = None
        for module, name, value in cpu_params:
            module._parameters[name] = value
        for module, name, value in cpu_buffers:
            module._buffers[name] = value
        for name, first in cpu_aliases.items():
            logger.debug("%s is %s", name, first)
            put_back(model, name, dict(model.named_parameters())[first])
    # batch normalisation does not say that it writes
    written = [
        value._value.is_floating_point() and (storage(value._value) in recorder.written or not value._value.equal(old))
        for (_, _, value), old in zip(buffers, before)
        if value is not None
    ]
    check_buffers(reassigned, any(written), options)
    places = {names[key]: tensor._index for key, tensor in moved.items()}
    parameters = {name: places.pop(name) for name, _ in model.named_parameters()}
    outputs = [tensor._index for tensor in tensors_of(result) if on_ipu(tensor)]
    graph = Graph(recorder, [tensor._index for tensor in tensors_of(inputs)], parameters, places, outputs)
    return graph, result, groups


def second_names(model):
    """Return the first name by each further name that the model's state_dict has for one and the same tensor."""
    plain_class = getattr(type(model), "_poptorch_wraps", type(model))
    tensors = collections.defaultdict(list)
    for name, value in plain_class.state_dict(model, keep_vars=True).items():
        tensors[id(value)].append(name)
    return {name: names[0] for names in tensors.values() for name in names[1:]}


def put_back(model, name, parameter):
    """Set a parameter by its whole name."""
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, parameter)


def owned(model, kind):
    """Return (module, name, tensor) of every parameter or buffer. kind: "_parameters" or "_buffers"."""
    return [(module, name, value) for module in model.modules() for name, value in getattr(module, kind).items()]


def move(recorder, parameters, buffers, names):
    """Put the device's tensors in the host's places; return them by the id of the host's."""
    moved = {}
    _contract.reach("move")
    for kind, tensors in (("_parameters", parameters), ("_buffers", buffers)):
        for module, name, value in tensors:
            if value is None:
                continue
            if id(value) not in moved:
                check_type(names[id(value)], value)
                host = demoted(_wrapping.plain(value.detach()).clone())
                moved[id(value)] = recorder.leaf(host, value.requires_grad)
                moved[id(value)]._is_param = kind == "_parameters"
            getattr(module, kind)[name] = moved[id(value)]
    return moved


def groups_of(optimizer, names):
    """Return the group of each parameter by its name. Raises KeyError for a parameter that is not the model's own."""
    groups = enumerate(optimizer.param_groups if optimizer is not None else ())
    return {names[id(value)]: index for index, group in groups for value in group["params"] if value.requires_grad}


def check_buffers(reassigned, written, options):
    """Refuse buffers that forward put another tensor in the place of, or wrote to on several replicas."""
    if reassigned:
        raise Error(
            f"Buffer {reassigned[0]} is reassigned within the model when calling the forward method. This is not "
            f"supported. Consider using self.{reassigned[0]}.copy_(src) to copy data from a source tensor."
        )
    if written and options.replication_factor > 1 and options.broadcast_buffers:
        raise compiler_error(
            "PopTorch does not support broadcasting buffers. If your model is able to tolerate buffers becoming out of "
            "sync between replicas, use poptorch.Options.broadcastBuffers(False)."
        )


def on_ipu(tensor):
    """Say whether a returned tensor was traced, and warn where it was not."""
    if isinstance(tensor, IpuTensor):
        return True
    warnings.warn(f"Output expected to be on the IPU but is on {tensor.device.type}", stacklevel=2)
    return False
