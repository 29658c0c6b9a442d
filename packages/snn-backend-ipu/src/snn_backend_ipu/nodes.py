"""How large the graph is that poptorch compiles: the time loop is unrolled, and its nodes are what compiling costs."""

import contextlib
import copy
import hashlib
import re
import warnings
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from snn_backend_ipu.loading import keeping_random_state
from snn_backend_ipu.modules import TrainingModule
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.step import Step

__all__ = ["Nodes", "count_nodes", "unvalidated"]

# what makes no operation on the device
_FREE = ("prim::", "aten::detach", "aten::size", "aten::numel", "aten::Int")


class Nodes(NamedTuple):
    """What a trace on the host found. total: nodes of the forward graph.   kinds: by operation, the most frequent
    first.   classified: whether the loss counts right answers.   calls: the model's modules by name, as they ran.
    counted: by how much one forward raises each counter of a batch norm, by the buffer's name.   written: the names of
    the buffers that a forward writes.   digest: the same in every process for the same operations, shapes and
    constants.
    """

    total: int
    kinds: Dict[str, int]
    classified: bool
    calls: Tuple[str, ...]
    counted: Dict[str, int]
    written: Tuple[str, ...]
    digest: str


def count_nodes(step: Step, batch: BatchSpec) -> Nodes:
    """Trace a copy of the step on the CPU, on zeros, as poptorch runs it: once, for its shapes."""
    module = TrainingModule(copy.deepcopy(step).cpu().float().train(), batch, marked=False)
    calls: List[str] = []
    for name, inner in module.step.model.named_modules():
        inner.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    before, held = _counters(module.step.model), _buffers(module.step.model)
    inputs = [_zeros(batch.x, batch.size), _zeros(batch.target, batch.size)]
    controls = _control_rows(step, batch.size)
    if controls is not None:
        inputs.append(controls)
    with keeping_random_state(), unvalidated(), warnings.catch_warnings():
        # of values that a trace freezes: lint has told of them, with the line
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, tuple(inputs), check_trace=False)
    graph = traced.inlined_graph
    kinds = Counter(node.kind() for node in graph.nodes())
    kept = {kind: count for kind, count in kinds.most_common() if not kind.startswith(_FREE)}
    counted = {name: count - before[name] for name, count in _counters(module.step.model).items()}
    written = _changed(held, _buffers(module.step.model))
    return Nodes(sum(kept.values()), kept, module.classified, tuple(calls), counted, written, _digest(graph))


@contextlib.contextmanager
def unvalidated() -> Iterator[None]:
    """Let distributions not look at the values of their parameters, as poptorch does while it traces."""
    validates = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validates)


def _digest(graph: Any) -> str:
    # names of classes differ with the module that a script is imported as, and with what was traced before
    found = hashlib.sha256(re.sub(r"__torch__[\w.]+", "", graph.str(False)).encode())
    for node in graph.findAllNodes("prim::Constant"):
        value = getattr(node, node.kindOf("value"))("value") if node.hasAttribute("value") else None
        # the text has six digits of a number, and nothing of a long tensor
        found.update(_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return found.hexdigest()


def _bytes(constant: Tensor) -> bytes:
    return bytes(constant.detach().reshape(-1).contiguous().view(torch.uint8).numpy())


def _counters(model: nn.Module) -> Dict[str, int]:
    """What the batch norms have counted, by the names that a state_dict gives it."""
    return {
        f"{name}.num_batches_tracked".lstrip("."): int(module.num_batches_tracked)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.num_batches_tracked is not None
    }


def _buffers(model: nn.Module) -> Dict[str, Tuple[int, Tensor]]:
    """How often each buffer was written in place, and its values: batch norm writes without counting."""
    return {name: (value._version, value.clone()) for name, value in model.named_buffers(remove_duplicate=False)}


def _changed(before: Mapping[str, Tuple[int, Tensor]], after: Mapping[str, Tuple[int, Tensor]]) -> Tuple[str, ...]:
    same = {name for name, (count, value) in before.items() if count == after[name][0] and value.equal(after[name][1])}
    return tuple(name for name in before if name not in same)


def _control_rows(step: Step, size: int) -> Optional[Tensor]:
    values = list(step.controls.values())
    return torch.tensor([values] * size, dtype=torch.float32) if values else None


def _zeros(spec: TensorSpec, size: int) -> Tensor:
    return torch.zeros((size, *spec.shape), dtype=getattr(torch, spec.dtype))
